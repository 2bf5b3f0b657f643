"""The command line of every script here: it ends as budc's own commands do, and reads lists in one way.

    @script(__doc__)
    @click.option("--models", type=MODELS, default="flux-nano")
    def main(models: tuple[str, ...]) -> None: ...

What cannot be done is said in a line, with what to do, and the exit code is budc's.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, NoReturn

import click

from budc.cli.ending import exit_code
from budc.compiler.budget import parse_budget
from budc.policies.model_choice import choose_model

COUNT = click.IntRange(1)
PATH = click.Path(path_type=Path)
FOLDER = click.Path(path_type=Path, file_okay=False)


class Script(click.Command):
    """A command that ends with budc's messages and exit codes."""

    def main(self, args: Any = None, prog_name: str | None = None, *rest: Any, **named: Any) -> NoReturn:
        """Run the command, and leave Python."""
        named["standalone_mode"] = False
        program = prog_name or shlex.join(["python", sys.argv[0]])
        run = super().main
        sys.exit(exit_code(lambda: run(args, program, *rest, **named)))


def script(text: str | None) -> Callable[[Callable[..., None]], Script]:
    """Return what makes a command of a function, with the module's docstring as its help."""
    return click.command(cls=Script, help=text)


class Numbers(click.ParamType[tuple[int, ...]]):
    """Whole numbers with commas between them, each of `least` or more."""

    name = "N,N"

    def __init__(self, least: int = 1) -> None:
        self.least = least

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Return the numbers."""
        if isinstance(value, tuple):
            return value
        parts = str(value).split(",")
        if not all(part.strip().isdecimal() and int(part) >= self.least for part in parts):
            self.fail(
                f"{value!r}: write whole numbers from {self.least} on with commas between them", param, ctx
            )
        return tuple(int(part) for part in parts)


class Names(click.ParamType[tuple[str, ...]]):
    """Names with commas between them, each one of the known."""

    name = "NAME,NAME"

    def __init__(self, known: Collection[str], *, may_be_empty: bool = False) -> None:
        self.known, self.may_be_empty = known, may_be_empty

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Return the names."""
        if isinstance(value, tuple):
            return value
        names = tuple(str(value).split(",")) if value or not self.may_be_empty else ()
        if unknown := [name for name in names if name not in self.known]:
            self.fail(f"{', '.join(unknown)} is none of {', '.join(self.known)}", param, ctx)
        return names


class Models(click.ParamType[tuple[str, ...]]):
    """Models with commas between them, as --model of budc takes each."""

    name = "MODEL,MODEL"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Return the names of models that there are.

        Raises:
            UsageError, WeightsMissing, UnsupportedModel: see `choose_model`.
        """
        if isinstance(value, tuple):
            return value
        for name in (names := tuple(str(value).split(","))):
            choose_model(name, _door(param))
        return names


class Model(click.ParamType[str]):
    """One model, as --model of budc takes it."""

    name = "MODEL"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name of a model that there is.

        Raises:
            UsageError, WeightsMissing, UnsupportedModel: see `choose_model`.
        """
        choose_model(value, _door(param))
        return str(value)


class Results(click.ParamType[dict[str, Any]]):
    """A file of results that one of the scripts wrote."""

    name = "FILE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        """Return what the file holds."""
        if isinstance(value, dict):
            return value
        try:
            results = json.loads(Path(value).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            self.fail(f"{value}: {error}", param, ctx)
        if not isinstance(results, dict) or "rows" not in results:
            self.fail(f"{value}: holds no rows; name a file that --json wrote", param, ctx)
        return results


NUMBERS, MODELS, MODEL, RESULTS = Numbers(), Models(), Model(), Results()


def check_budgets(models: Iterable[str], budgets: Iterable[int], source: str = "budgets") -> None:
    """Refuse budgets that a model's steps do not have; `source` is the option that they came in.

    Raises:
        BudgetImpossible: see `parse_budget`.
    """
    budgets = tuple(budgets)
    for profile in map(choose_model, models):
        for nfe in budgets:
            parse_budget(str(nfe), profile.steps, len(profile.denoisers), source=source)


def _door(param: click.Parameter | None) -> str:
    return "--model" if param is None else param.opts[0]
