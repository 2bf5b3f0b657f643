"""What the user asks of a compile: flags, or a policy source in TOML of the same content.

model = "wan2.1-nano"
budget = "10"
seed = 0
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from budc.compiler.budget import parse_budget
from budc.compiler.search import algorithm
from budc.policies.profile import ModelProfile, load_profile
from budc.runtimes.sampling.families import FAMILIES
from budc.schema.errors import UsageError
from budc.schema.policy import Name

_PATHS = ("weights", "calibration", "key", "public", "out")


class CompileRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One compile. Fields left `None` take the model profile's value."""

    model: str
    budget: str = ""
    sweep: str | None = None
    """Budgets with commas between them: a family of policies that share the full run and the rollouts."""
    steps: int | Literal["auto"] | None = None
    """A number of steps, or "auto": the profile's or as many as the budget, whichever other prompts prefer."""
    weights: Path | None = None
    search: str = "joint"
    align: bool = False
    branches: Literal["together", "separate"] = "together"
    seed: int = 0
    calibration: Path | None = None
    key: str | None = None
    """Path of a private key, "env:NAME", or a key URI; see `budc.schema.keys.load_signer`."""
    public: Path | None = None
    """The public half of `key`, where that is a URI."""
    out: Path | None = None
    name: str | None = None
    revision: int = 1
    download: bool = False
    rehash: bool = False
    """Read every file of the model again, whatever an earlier process remembered of it."""


def read_source(path: Path) -> dict[str, Any]:
    """Read a policy source; paths in it are relative to the file.

    Raises:
        UsageError: unreadable, not TOML, or a key that is not known (the nearest known one is suggested).
    """
    try:
        source = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path}: cannot read the policy source: {error}", remedy="give a TOML file"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: not TOML: {error}", remedy="see docs/compile.md for an example") from error
    known = CompileRequest.__struct_fields__
    for key in source:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
            raise UsageError(f"{path}: unknown key {key!r}", remedy=hint)
    for key in _PATHS:
        # A key may be a URI: only what names a file is relative to this one.
        if isinstance(source.get(key), str) and not (key == "key" and ":" in source[key]):
            source[key] = path.parent / source[key]
    for key in ("budget", "sweep"):
        if isinstance(source.get(key), int) and not isinstance(source[key], bool):
            source[key] = str(source[key])
    return source


def make_request(source: dict[str, Any], flags: dict[str, Any]) -> CompileRequest:
    """Merge a policy source with flags that were given; flags win.

    Raises:
        UsageError: model or budget missing, or a value of the wrong type or out of range.
    """
    merged = source | {key: value for key, value in flags.items() if value is not None}
    if "model" not in merged:
        raise UsageError("no model given", remedy="pass --model, or set model in the policy source")
    if ("budget" in merged) == ("sweep" in merged):
        raise UsageError(
            "both a budget and a sweep given" if "budget" in merged else "no budget given",
            remedy="pass --budget 10 for one policy, or --sweep 6,8,10 for a family",
        )
    try:
        plain = {k: str(v) if isinstance(v, Path) else v for k, v in merged.items()}
        request = msgspec.convert(plain, CompileRequest, dec_hook=_path)
    except msgspec.ValidationError as error:
        raise UsageError(f"policy source: {error}") from error
    for key, low, high in (("seed", 0, 2**53 - 1), ("steps", 1, 1000), ("revision", 1, 2**31 - 1)):
        value = getattr(request, key)
        if isinstance(value, int) and not low <= value <= high:
            raise UsageError(f"{key} is {value}, expected {low} to {high}")
    return request


def check_judged(search: str, asked: Mapping[str, bool]) -> None:
    """Refuse the flags that are asked for and decided on prompts that a search does not see, where it sees all.

    Raises:
        UsageError: one of them is, or there is no such search.
    """
    for flag, wanted in asked.items():
        if not algorithm(search).arbitrated and wanted:
            raise UsageError(
                f"{flag}: --search {search} leaves no prompts to judge by", remedy="use --search joint"
            )


def check_request(request: CompileRequest) -> tuple[ModelProfile, int, dict[int, str]]:
    """Refuse what can be refused without loading anything; return profile, steps, and NFE -> budget as asked for.

    Raises:
        UsageError: unknown model or algorithm, a name that an artifact cannot have, or masks that the model's
            pipeline cannot follow.
        BudgetImpossible: see `parse_budget`.
    """
    profile = load_profile(request.model)
    steps = request.steps if isinstance(request.steps, int) else profile.steps
    asked = request.sweep.split(",") if request.sweep is not None else [request.budget]
    budgets = {parse_budget(budget, steps, len(profile.denoisers)): budget.strip() for budget in asked}
    check_judged(request.search, {"--align": request.align, "--steps auto": request.steps == "auto"})
    if request.branches == "separate" and any(
        family.batched for kind, family in FAMILIES.items() if kind in profile.denoisers.values()
    ):
        raise UsageError(
            f"--branches separate: {profile.pipeline_class} runs its branches in one forward, "
            "which is computed or reused as a whole",
            remedy="leave it out: the branches then share a mask, with coefficients of their own",
        )
    if request.name is not None:
        try:
            msgspec.convert(request.name, Name)
        except msgspec.ValidationError as error:
            raise UsageError(
                f"--name: {request.name!r} cannot name a policy",
                remedy="use letters, digits, dot, dash, underscore",
            ) from error
    return profile, steps, budgets


def _path(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise TypeError(f"Expected `{kind.__name__}`, got `{type(value).__name__}`")
