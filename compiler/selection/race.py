"""Race: the finalists of a screen on further prompts, each with coefficients fitted on all of them.

Candidates that the screen can hardly tell apart differ on other prompts. So the best few are rolled out again on more,
and the one that loses least there wins.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from budc.compiler.rollouts.tree import Tree
from budc.compiler.search import Candidate, Objective
from budc.compiler.selection.scores import Scored, Scores, not_finite
from budc.compiler.storage.journal import Journal
from budc.progress import progress


class RaceResult(msgspec.Struct, frozen=True):
    """The racers, best first, with coefficients and losses of all prompts, who won in words, and the cost."""

    ranking: tuple[Scored, ...]
    note: str
    forwards: int


def race(
    search: str, candidates: Sequence[Candidate], objective: Objective, tree: Tree, journal: Journal
) -> RaceResult:
    """Roll out the candidates that a search ended with on the prompts of a tree.

    Raises:
        CompileError: the final latents of no candidate are finite.
    """
    prompts = tree.network.samples
    with progress(f"race on {prompts} prompts", len(candidates)) as bar:
        scores = Scores(f"race of {search} on {prompts}", objective, tree, journal, bar)
        scores.losses(candidates)
    ranking = tuple(scores.ranking())
    if not ranking:
        raise not_finite(f"the final latents of none of {len(candidates)} finalists are finite")
    place = candidates.index(ranking[0].candidate) + 1
    note = f"finalist {place} of {len(candidates)} by a race on {prompts} prompts"
    return RaceResult(ranking, note, scores.forwards)
