"""Study: the loop between an algorithm that proposes candidates and rollouts that score them.

    loss(candidate) = mean over prompts of the squared error of the final latents against the reference run (`mean`),
                      or of its logarithm (`log-mean`), in which the few prompts that flip to another mode weigh little

Every candidate is scored once: its loss and coefficients are in the journal before the algorithm sees them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from functools import partial
from typing import Annotated

import msgspec

from budc.compiler.fitting.trajectory import CoefficientRows
from budc.compiler.rollouts.metrics import objective
from budc.compiler.rollouts.tree import Tree
from budc.compiler.search import Candidate, Space, algorithm
from budc.compiler.storage.journal import Journal
from budc.option_names import option, worded
from budc.progress import Bar, progress
from budc.schema.errors import CompileError
from budc.schema.policy import Policy
from budc.schema.predictor import MAX_TERMS

FINALISTS = 4


class Scored(msgspec.Struct, frozen=True):
    """A candidate, its loss on the search prompts and the policy that it became there."""

    candidate: Candidate
    loss: float
    policy: Policy


class StudyResult(msgspec.Struct, frozen=True):
    """The best candidates of a search, best first, and what it cost."""

    finalists: tuple[Scored, ...]
    candidates: int
    forwards: int


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the journal has of a scored candidate; the loss is infinite where final latents are not finite."""

    loss: float
    rows: tuple[CoefficientRows, ...]
    forwards: Annotated[int, msgspec.Meta(ge=0)]

    def fits(self, candidate: Candidate, branches: Sequence[str]) -> bool:
        """Return whether there are coefficients for the branches and steps that the candidate reuses, and no others."""
        masks = candidate.masks if len(candidate.masks) > 1 else candidate.masks * len(branches)
        reusing = [
            {name for name, computed in zip(branches, step, strict=True) if not computed}
            for step in zip(*masks, strict=True)
        ]
        return [row.keys() for row in self.rows] == reusing and all(
            1 <= len(terms) <= MAX_TERMS for row in self.rows for terms in row.values()
        )


class _Scores:
    """Scores candidates, each once, and remembers them; the journal keeps them for a resumed study."""

    def __init__(self, name: str, tree: Tree, journal: Journal, bar: Bar) -> None:
        self.scored: dict[str, tuple[Candidate, _Record]] = {}
        self._name, self._tree, self._journal, self._bar = name, tree, journal, bar
        self._objective = algorithm(name).objective

    def losses(self, candidates: Sequence[Candidate]) -> list[float]:
        """Return the losses of candidates; those that are not known yet are rolled out together."""
        unknown: list[Candidate] = []
        for candidate in {c.key: c for c in candidates if c.key not in self.scored}.values():
            fits = partial(_Record.fits, candidate=candidate, branches=self._tree.network.branches)
            record = self._journal.get(f"{self._name} {candidate.key}", _Record, fits)
            if record is None:
                unknown.append(candidate)
                continue
            self._tree.note(candidate)
            self._add(candidate, record, replayed=True)
        for candidate, rollout in zip(unknown, self._tree.roll_out(unknown), strict=True):
            loss = objective(self._objective, rollout.errors)
            if not math.isfinite(loss) and candidate.rule == "plain":
                raise _not_finite(f"candidate {candidate.key}: the final latents are not finite")
            record = _Record(loss if math.isfinite(loss) else math.inf, rollout.rows, rollout.forwards)
            self._journal.put(f"{self._name} {candidate.key}", record)
            self._add(candidate, record)
        return [self.scored[candidate.key][1].loss for candidate in candidates]

    def _add(self, candidate: Candidate, record: _Record, *, replayed: bool = False) -> None:
        self.scored[candidate.key] = candidate, record
        lowest = min(record.loss for _, record in self.scored.values())
        self._bar.advance(f"best {lowest:.3g}", replayed=replayed)


def search(name: str, space: Space, tree: Tree, journal: Journal, seed: int) -> StudyResult:
    """Run an algorithm to its end and return the best `FINALISTS` of what it scored.

    Raises:
        UsageError: there is no algorithm of that name, or it cannot search this space.
        CompileError: a candidate's final latents are not finite although its rule fits nothing, or no candidate's
            are.
    """
    chosen = algorithm(name)
    proposals = chosen.propose(space, random.Random(seed))
    with progress(f"search ({name})", chosen.max_candidates(space)) as bar:
        scores = _Scores(name, tree, journal, bar)
        candidates = next(proposals)
        while True:
            try:
                candidates = proposals.send(scores.losses(candidates))
            except StopIteration:
                break
    scored = scores.scored.values()
    finalists = tuple(
        Scored(candidate, record.loss, policy_of(tree, candidate, record.rows))
        for candidate, record in sorted(scored, key=lambda pair: pair[1].loss)[:FINALISTS]
        if math.isfinite(record.loss)
    )
    if not finalists:
        raise _not_finite(
            f"{option('search', name)}: the final latents of none of {len(scored)} candidates are finite"
        )
    return StudyResult(finalists, len(scored), sum(record.forwards for _, record in scored))


def _not_finite(message: str) -> CompileError:
    return CompileError(
        message,
        remedy=worded(
            "check that the full run works in the profile's dtype; try another search or budget",
            "check that the network's own run of all steps is finite; try another search or budget",
        ),
    )


def policy_of(tree: Tree, candidate: Candidate, rows: Sequence[CoefficientRows]) -> Policy:
    """Return the policy with these coefficients; branches that agree in everything share an entry."""
    branches = tree.network.denoiser.branches
    return Policy.of(candidate.payload, {name: [row.get(name, ()) for row in rows] for name in branches})
