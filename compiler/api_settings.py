"""Settings that a user hands to `compile_policy`: numbers, names and choices of another kind are refused."""

from __future__ import annotations

from typing import Any

from budc.schema.arguments import described
from budc.schema.errors import UsageError


def check_budget(budget: Any) -> None:
    """Refuse a budget that is neither an int nor a text. Raises UsageError."""
    if isinstance(budget, bool) or not isinstance(budget, int | str):
        factor = f"{budget:g}x" if isinstance(budget, float) else "2.8x"
        raise UsageError(
            f"budget: {described(budget)} is neither a whole number nor a text",
            remedy=f"pass evaluations a branch, such as budget=10, or a speed-up, budget={factor!r}",
        )


def check_choices(search: Any, align: Any, steps: Any) -> None:
    """Refuse what chooses an algorithm if it is of another kind. Raises UsageError."""
    if not isinstance(search, str):
        raise UsageError(
            f"search: {described(search)} is no name", remedy="pass a name such as search='joint'"
        )
    if not isinstance(align, bool):
        raise UsageError(
            f"align: {described(align)} is neither True nor False", remedy="pass align=True or False"
        )
    if steps is not None and not (isinstance(steps, str) and steps == "auto"):
        raise UsageError(
            f"steps: {described(steps)} is not 'auto'", remedy="sigmas say how many steps there are"
        )


def check_weights(weights: Any) -> None:
    """Refuse a name of weights that is no text. Raises UsageError."""
    if weights is not None and (not isinstance(weights, str) or not weights):
        raise UsageError(
            f"weights: {described(weights)} names no weights",
            remedy="pass a text such as the sha256 of the file that holds them",
        )
