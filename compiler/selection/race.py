"""Race: the finalists of a search in groups on all prompts that are fitted, each with coefficients of its own.

Candidates that one group can hardly tell apart differ on more prompts. So the best few are rolled out again on all,
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
    most = len(candidates) * space.nfe * len(space.branches) * prompts
    with progress(f"race on {prompts} prompts", len(candidates) + 2 * space.nfe) as bar:
        scores = Scores(f"race of {search} on {prompts}", objective, forest, journal, bar)
        scores.losses(candidates)
        finalists = scores.ranking()
        if not finalists:
            raise not_finite(f"the final latents of none of {len(candidates)} finalists are finite")
        descend(space, finalists[0], scores, forest, most)
    ranking = scores.ranking()
    place = candidates.index(finalists[0].candidate) + 1
    note = f"finalist {place} of {len(candidates)} by a race on {prompts} prompts"
    before, after = (slots_of(space, best.candidate) for best in (finalists[0], ranking[0]))
    if moved := sum(one != other for one, other in zip(before, after, strict=True)):
        note += f", {counted(moved, 'step')} moved by one"
    return RaceResult(tuple(ranking[: len(finalists)]), note, scores.forwards)
