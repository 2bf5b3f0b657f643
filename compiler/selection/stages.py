"""Stages: how calibration prompts are shared between the search, the race of its finalists, and the judges.

screen    the search rolls out each candidate on a few prompts, one group of them after the other
race      its finalists are rolled out, and fitted, on all groups and what is left over
judge     the last prompts decide between what was fitted on the others
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from budc.compiler.search import algorithm
from budc.compiler.selection.effort import FINALISTS, Effort, effort
from budc.option_names import option, worded
from budc.schema.errors import UsageError

Trained = Literal["both", "sigmas", "coefficients"]
"""What an alignment trains."""
SEARCH_SHARE = 0.75
"""Share of the calibration prompts that a search sees which is given all of them; the others judge."""
LEAST_GROUP = 3
"""Of fewer prompts there is one group, as coefficients of two fit these alone."""


class Stages(NamedTuple):
    """Numbers of prompts: `screen` in each group, the first `fit` (all groups among them), and `judge` after those."""

    screen: int
    fit: int
    judge: int

    def of(self, search: str) -> Stages:
        """Return the stages of a search on the same prompts: most score each candidate on all that are fitted."""
        return self if algorithm(search).grouped else self._replace(screen=self.fit)

    @property
    def races(self) -> bool:
        """Whether the finalists of the search race: where it did not score them on all that are fitted."""
        return self.screen < self.fit

    def finalists(self, given: Effort) -> int:
        """Return how many candidates judges choose from: those that raced, or the best of the search."""
        return given.finalists if self.races else FINALISTS

    @property
    def groups(self) -> int:
        """How many groups of `screen` prompts the search scores on, one candidate after the other."""
        return self.fit // self.screen

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """The prompts of each group."""
        return tuple((group * self.screen, (group + 1) * self.screen) for group in range(self.groups))

    @property
    def total(self) -> int:
        """All that are used."""
        return self.fit + self.judge

    def chosen(self, given: int) -> list[int]:
        """Return which of `given` prompts are used, in order: all as they come, or some, spread evenly over the list.

        A list may be sorted by subject, so the first ones would be alike; so would be those of a group. Where an effort
        takes more prompts, they come after those of a smaller one.
        """
        if self.total == given and self.screen == self.fit:
            return list(range(given))
        digits = given.bit_length()
        return sorted(range(given), key=lambda index: f"{index:0{digits}b}"[::-1])[: self.total]


def check_arbitrated(
    search: str,
    *,
    align: bool,
    auto_steps: bool = False,
    train: Trained | None = None,
    quality: bool = False,
) -> None:
    """Refuse choices that are made on prompts which the search does not see, where it sees all of them.

    `quality` says that a quality decides on the budget. `train` says what an alignment trains, where that can be
    chosen: the paper's search may train sigmas, as nothing judges its second stage.

    Raises:
        UsageError: such a search, with `align`, `auto_steps` or `quality`; or there is no search of that name.
    """
    if algorithm(search).arbitrated:
        return
    second_stage = search == "paper" and train is not None
    if second_stage and train == "sigmas":
        align = False
    choices = {option("align"): align, option("steps", "auto"): auto_steps, option("quality"): quality}
    for name, wanted in choices.items():
        if wanted:
            raise UsageError(
                f"{name}: {option('search', search)} leaves no prompts to judge by",
                remedy=f"use {option('train', 'sigmas')}, the paper's second stage, or {option('search', 'joint')}"
                if second_stage and name == option("align")
                else f"use {option('search', 'joint')}",
            )


def stages_of(search: str, effort_name: str, nfe: int, prompts: int, *, arbitrates: bool) -> Stages:
    """Return how many of the calibration prompts each stage is given, for a policy of `nfe` evaluations a branch.

    `arbitrates`: an alignment or a number of steps is to be decided.

    Raises:
        UsageError: no prompt is left to decide it by; or there is no search or effort of that name.
    """
    given = effort(effort_name)
    if not algorithm(search).arbitrated:
        return Stages(prompts, prompts, 0)
    seen = max(1, round(SEARCH_SHARE * prompts)) if prompts > 1 else prompts
    if arbitrates and seen == prompts:
        have = worded(
            f"{prompts} calibration prompts leave", f"calibration has {prompts} samples, which leave"
        )
        raise UsageError(
            f"{have} none to judge an alignment or a number of steps by",
            remedy="give at least three; two dozen is a good number",
        )
    if given.fit is None or given.judge is None:
        screen = given.screen.at(nfe)
        return Stages(screen if 2 * screen <= seen else seen, seen, prompts - seen).of(search)
    judge = min(given.judge, prompts - seen) if arbitrates else 0
    fit = min(given.fit.at(nfe), prompts - judge)
    half = fit // 2
    screen = min(given.screen.at(nfe), half if half >= LEAST_GROUP else min(seen, fit))
    return Stages(screen, fit, judge).of(search)
