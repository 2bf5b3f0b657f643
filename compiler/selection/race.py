"""Race: the finalists of a screen on further prompts, each with coefficients fitted on all of them.

Candidates that the screen can hardly tell apart differ on other prompts. So the best few are rolled out again on more,
and the one that loses least there wins. Finalists that begin alike share forwards; what that saves is spent on moves of
the winner's steps (`budc.compiler.selection.descent`).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from budc.compiler.rollouts.forest import Forest
from budc.compiler.search import Candidate, Objective, Space
from budc.compiler.search.moves import slots_of
from budc.compiler.selection.descent import descend
from budc.compiler.selection.scores import Scored, Scores, not_finite
from budc.compiler.storage.journal import Journal
from budc.progress import progress
from budc.schema.plural import counted


class RaceResult(msgspec.Struct, frozen=True):
    """As many as raced, best first, with coefficients and losses of all prompts, who won in words, and the cost."""

    ranking: tuple[Scored, ...]
    note: str
    forwards: int


def race(
    search: str,
    space: Space,
    candidates: Sequence[Candidate],
    objective: Objective,
    forest: Forest,
    journal: Journal,
) -> RaceResult:
    """Roll out the candidates that a search ended with on the prompts of a forest of one tree, then move the best.

    Both take no more forwards than the candidates would if they shared none.

    Raises:
        CompileError: the final latents of no candidate are finite.
    """
    prompts = forest.trees[0].network.samples
    with progress(f"race on {prompts} prompts", len(candidates)) as bar:
        scores = Scores(f"race of {search} on {prompts}", objective, forest, journal, bar)
        scores.losses(candidates)
    ranking = scores.ranking()
    if not ranking:
        raise not_finite(f"the final latents of none of {len(candidates)} finalists are finite")
    place = candidates.index(ranking[0].candidate) + 1
    note = f"finalist {place} of {len(candidates)} by a race on {prompts} prompts"
    saved = len(candidates) * space.nfe * len(space.branches) * prompts - scores.forwards
    name = f"descent of {search} on {prompts}"
    better, spent = descend(space, ranking[0], name, objective, forest, journal, saved)
    if better:
        before, after = ({*slots_of(space, scored.candidate)} for scored in (ranking[0], better[0]))
        note += f", {counted(len(after - before), 'step')} moved by one"
    return RaceResult((*better, *ranking)[: len(ranking)], note, scores.forwards + spent)
