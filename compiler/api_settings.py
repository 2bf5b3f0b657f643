"""Settings that a user hands to `compile_policy` or `transfer_policy`: those of another kind are refused."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any, get_args

from budc.compiler.selection.effort import effort as effort_named
from budc.compiler.selection.stages import Trained, check_arbitrated
from budc.schema.arguments import described, seed_argument, whole_number
from budc.schema.errors import UsageError


def check_execution(seed: Any, batch: Any, weights: Any, progress: Any) -> tuple[int, int | None]:
    """Return seed and batch as whole numbers; refuse what is none, and other kinds of the others. Raises UsageError."""
    if weights is not None and (not isinstance(weights, str) or not weights):
        raise UsageError(
            f"weights: {described(weights)} names no weights",
            remedy="pass a text such as the sha256 of the file that holds them",
        )
    _check_progress(progress)
    if batch is not None:
        remedy = "pass the most samples of one forward, or None"
        batch = whole_number(batch, "batch", least=1, most=1 << 20, remedy=remedy)
    return seed_argument(seed, most=2**53 - 1), batch


def check_choices(search: Any, effort: Any, steps: Any, *, align: Any, train: Any, quality: bool) -> None:
    """Refuse names and switches of another kind, or that do not fit together. Raises UsageError.

    `quality` says that a quality decides on the budget.
    """
    if not isinstance(search, str):
        raise UsageError(
            f"search: {described(search)} is no name", remedy="pass a name such as search='joint'"
        )
    check_effort(effort)
    check_switch("align", align)
    _check_train(train, align)
    if steps is not None and not (isinstance(steps, str) and steps == "auto"):
        raise UsageError(
            f"steps: {described(steps)} is not 'auto'", remedy="sigmas say how many steps there are"
        )
    auto_steps = steps == "auto"
    check_arbitrated(search, align=align, auto_steps=auto_steps, train=train or "both", quality=quality)


def check_effort(effort: Any) -> None:
    """Refuse what names no effort. Raises UsageError."""
    if not isinstance(effort, str):
        raise UsageError(
            f"effort: {described(effort)} is no name", remedy="pass a name such as effort='balanced'"
        )
    effort_named(effort)


def check_switch(name: str, value: Any) -> None:
    """Refuse a switch that is neither on nor off. Raises UsageError."""
    if not isinstance(value, bool):
        raise UsageError(
            f"{name}: {described(value)} is neither True nor False", remedy=f"pass {name}=True or False"
        )


def _check_train(train: Any, align: bool) -> None:
    """Refuse what names no part of an alignment, or says so of none. Raises UsageError."""
    if train is not None and not (isinstance(train, str) and train in get_args(Trained)):
        raise UsageError(
            f"train: {described(train)} is not what an alignment trains",
            remedy=f"pass one of {', '.join(get_args(Trained))}",
        )
    if train is not None and not align:
        raise UsageError("train: says what align=True trains", remedy="pass align=True, or leave train out")


def _check_progress(progress: Any) -> None:
    """Refuse a progress that cannot be called with a name and two numbers. Raises UsageError."""
    if progress is None or (callable(progress) and not isinstance(progress, type) and _takes_three(progress)):
        return
    raise UsageError(
        f"progress: {described(progress)} is no function of three values",
        remedy="pass a function of a pass's name, units done and units in all, or None for silence",
    )


def _takes_three(function: Callable[..., object]) -> bool:
    try:
        signature(function).bind("", 0, 0)
    except TypeError:
        return False
    except ValueError:
        # A built-in function that does not say what it takes.
        return True
    return True
