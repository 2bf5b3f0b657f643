"""Study: the loop between an algorithm that proposes candidates and rollouts that score them.

    loss(candidate) = mean over prompts of the squared error of the final latents against the reference run (`mean`),
                      or of its logarithm (`log-mean`), in which the few prompts that flip to another mode weigh little

Every candidate is scored once: its loss and coefficients are in the journal before the algorithm sees them.
"""

from __future__ import annotations

import random

import msgspec

from budc.compiler.rollouts.forest import Forest
from budc.compiler.search import Space, algorithm
from budc.compiler.selection.effort import FINALISTS
from budc.compiler.selection.scores import Scored, Scores, not_finite
from budc.compiler.selection.trace import TracePoint
from budc.compiler.storage.journal import Journal
from budc.option_names import option
from budc.progress import progress


class StudyResult(msgspec.Struct, frozen=True):
    """The best candidates of a search, best first, all that it scored, in its order, and what that cost."""

    finalists: tuple[Scored, ...]
    trace: tuple[TracePoint, ...]
    forwards: int

    @property
    def candidates(self) -> int:
        """How many it scored."""
        return len(self.trace)


def search(name: str, space: Space, forest: Forest, journal: Journal, seed: int) -> StudyResult:
    """Run an algorithm to its end and return the best `FINALISTS` of what it scored.

    Raises:
        UsageError: there is no algorithm of that name, or it cannot search this space.
        CompileError: a candidate's final latents are not finite although its rule fits nothing, or no candidate's
            are.
    """
    chosen = algorithm(name)
    proposals = chosen.propose(space, random.Random(seed))
    with progress(f"search ({name})", chosen.max_candidates(space)) as bar:
        scores = Scores(name, chosen.objective, forest, journal, bar)
        candidates = next(proposals)
        while True:
            losses = scores.losses(candidates)
            try:
                candidates = proposals.send(losses)
            except StopIteration:
                break
    finalists = tuple(scores.ranking(space)[:FINALISTS])
    if not finalists:
        raise not_finite(
            f"{option('search', name)}: the final latents of none of {len(scores.known)} candidates are finite"
        )
    return StudyResult(finalists, scores.trace(), scores.forwards)
