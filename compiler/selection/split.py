"""How calibration prompts are shared between the search and the arbitration of what it found."""

from __future__ import annotations

from budc.compiler.search import algorithm
from budc.option_names import option, worded
from budc.schema.errors import UsageError

SEARCH_SHARE = 0.75
"""Share of the calibration prompts that the search sees; finalists are arbitrated on the others."""


def check_arbitrated(search: str, *, align: bool, auto_steps: bool = False) -> None:
    """Refuse choices that are made on prompts which the search does not see, where it sees all of them.

    Raises:
        UsageError: such a search, with `align` or `auto_steps`; or there is no search of that name.
    """
    if algorithm(search).arbitrated:
        return
    for wanted, name in ((align, option("align")), (auto_steps, option("steps", "auto"))):
        if wanted:
            raise UsageError(
                f"{name}: {option('search', search)} leaves no prompts to judge by",
                remedy=f"use {option('search', 'joint')}",
            )


def searched_on(search: str, prompts: int, *, arbitrates: bool) -> int:
    """Return how many of the calibration prompts a search sees; the others arbitrate.

    Raises:
        UsageError: an alignment or a number of steps is to be arbitrated, and no prompt is left to do it.
    """
    arbitrated = algorithm(search).arbitrated
    seen = max(1, round(SEARCH_SHARE * prompts)) if arbitrated and prompts > 1 else prompts
    if seen == prompts and arbitrated and arbitrates:
        have = worded(
            f"{prompts} calibration prompts leave", f"calibration has {prompts} samples, which leave"
        )
        raise UsageError(
            f"{have} none to judge an alignment or a number of steps by",
            remedy="give at least three; two dozen is a good number",
        )
    return seen
