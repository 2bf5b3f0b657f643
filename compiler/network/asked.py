"""What a user of Python asks of a policy's budget: evaluations, a factor, a quality or a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from budc.compiler.asked_budget import parse_quality, parse_seconds
from budc.compiler.budget import parse_budget
from budc.compiler.network.finding import Find, Search, for_budget, for_quality, within_seconds
from budc.schema.arguments import described
from budc.schema.errors import UsageError


@dataclass(frozen=True)
class AskedBudget:
    """What is asked for, as the user wrote it, and what finds a policy of that by a search."""

    text: str
    find: Callable[[Search], Find]
    open: bool
    """Whether a measurement decides on the budget."""

    def nfe(self, steps: int, fewest: int) -> int:
        """Return the evaluations a branch; every step, where a measurement decides. Raises as `parse_budget` does."""
        return steps if self.open else parse_budget(self.text, steps, fewest)


def asked_budget(budget: Any, quality: Any, within: Any, *, worst: Any) -> AskedBudget:
    """Return what is asked for by one of the three. Raises UsageError."""
    given = {
        name: value
        for name, value in {"budget": budget, "quality": quality, "within": within}.items()
        if value is not None
    }
    if len(given) != 1:
        said = f"{', '.join(given)}: each says what the budget is" if given else "budget: none is given"
        raise UsageError(said, remedy='pass one of budget=10, quality="latent-mse<=0.01" and within="2.0s"')
    if not isinstance(worst, bool):
        raise UsageError(
            f"worst: {described(worst)} is neither True nor False", remedy="pass worst=True or False"
        )
    if worst and quality is None:
        raise UsageError(
            "worst: says of which sample quality is", remedy='pass quality="latent-mse<=0.01" with it'
        )
    if quality is not None:
        if not isinstance(quality, str):
            raise UsageError(
                f"quality: {described(quality)} is no text", remedy='pass a bound, quality="latent-mse<=0.01"'
            )
        bound = parse_quality(quality, worst=worst, frames=False)
        return AskedBudget(str(bound), partial(for_quality, bound), True)
    if within is not None:
        if isinstance(within, bool) or not isinstance(within, int | float | str):
            raise UsageError(
                f"within: {described(within)} is neither seconds nor a text",
                remedy='pass seconds, such as within=2.0 or within="800ms"',
            )
        text = within.strip() if isinstance(within, str) else f"{float(within):f}s"
        return AskedBudget(text, partial(within_seconds, parse_seconds(text)), True)
    if isinstance(budget, bool) or not isinstance(budget, int | str):
        factor = f"{budget:g}x" if isinstance(budget, float) else "2.8x"
        raise UsageError(
            f"budget: {described(budget)} is neither a whole number nor a text",
            remedy=f"pass evaluations a branch, such as budget=10, or a speed-up, budget={factor!r}",
        )
    return AskedBudget(str(budget), for_budget, False)
