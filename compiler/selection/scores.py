"""Scores: candidates rolled out on groups of prompts, each once, and what is known of them then.

Losses and coefficients are in the journal before anything is decided by them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from typing import Annotated

import msgspec

from budc.compiler.fitting.trajectory import CoefficientRows
from budc.compiler.rollouts.forest import Forest
from budc.compiler.rollouts.metrics import objective
from budc.compiler.rollouts.tree import Rollout, Tree
from budc.compiler.search import Candidate, Objective, Space
from budc.compiler.search.comparable import comparable_losses
from budc.compiler.search.moves import Slots, Trial, slots_of
from budc.compiler.search.payload_penalty import payload_penalty
from budc.compiler.selection.trace import TracePoint
from budc.compiler.storage.journal import Journal
from budc.option_names import worded
from budc.progress import Bar
from budc.schema.errors import CompileError
from budc.schema.policy import Payload, Policy
from budc.schema.predictor import MAX_TERMS


class Scored(msgspec.Struct, frozen=True):
    """A candidate, its loss on the prompts that it was fitted on, and the policy that it became there.

    Of several groups, the loss is the predicted mean over all, and the policy that of one.
    """

    candidate: Candidate
    loss: float
    policy: Policy


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
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


class Scores:
    """Scores candidates under `name`, each once on the prompts of its group; the journal keeps the records for a search
    that is resumed.
    """

    def __init__(self, name: str, kind: Objective, forest: Forest, journal: Journal, bar: Bar) -> None:
        self.known: dict[str, tuple[Candidate, Record]] = {}
        """By name of the candidate and, where that is not the first, of its group."""
        self._name, self._kind, self._forest, self._journal, self._bar = name, kind, forest, journal, bar

    @property
    def forwards(self) -> int:
        """What the rollouts cost."""
        return sum(record.forwards for _, record in self.known.values())

    def trace(self) -> tuple[TracePoint, ...]:
        """Return every candidate in the order in which it was scored, or read from the journal."""
        spent = accumulate(record.forwards for _, record in self.known.values())
        return tuple(
            TracePoint(candidate, record.loss, forwards)
            for (candidate, record), forwards in zip(self.known.values(), spent, strict=True)
        )

    def losses(self, candidates: Sequence[Candidate]) -> list[float]:
        """Return the losses of candidates; those that are not known yet are rolled out together.

        Raises:
            CompileError: final latents are not finite although the candidate's rule fits nothing.
        """
        fresh = list({_label(c): c for c in candidates if _label(c) not in self.known}.values())
        records = {_label(candidate): self._recorded(candidate) for candidate in fresh}
        replayed = {key for key, record in records.items() if record is not None}
        # All in their order, so that costs do not depend on which of them an earlier call has rolled out.
        costs = {_label(candidate): self._forest.note(candidate) for candidate in fresh}
        unknown = [candidate for candidate in fresh if _label(candidate) not in replayed]
        rollouts = self._forest.rollouts(unknown, [costs[_label(candidate)] for candidate in unknown])
        for candidate in fresh:
            while (record := records[_label(candidate)]) is None:
                position, rollout = next(rollouts)
                label = _label(unknown[position])
                records[label] = self._record(unknown[position], rollout)
                self._journal.put(f"{self._name} {label}", records[label])
            self._add(candidate, record, replayed=_label(candidate) in replayed)
        return [self.known[_label(candidate)][1].loss for candidate in candidates]

    def _recorded(self, candidate: Candidate) -> Record | None:
        fits = partial(Record.fits, candidate=candidate, branches=self._forest.trees[0].network.branches)
        return self._journal.get(f"{self._name} {_label(candidate)}", Record, fits)

    def _record(self, candidate: Candidate, rollout: Rollout) -> Record:
        loss = objective(self._kind, rollout.errors)
        if not math.isfinite(loss) and candidate.rule == "plain":
            raise not_finite(f"candidate {candidate.key}: the final latents are not finite")
        return Record(loss if math.isfinite(loss) else math.inf, rollout.rows, rollout.forwards)

    def ranking(self, space: Space | None = None) -> list[Scored]:
        """Return the candidates of finite loss with their policies, best first.

        Where the space has several groups, losses are made comparable, and a mask comes once. Another payload than the
        velocity must lead clearly (`budc.compiler.search.payload_penalty`).
        """
        tree = self._forest.trees[0]
        if space is not None and space.groups > 1:
            scored = self._compared(space)
        else:
            scored = [(candidate, record, record.loss) for candidate, record in self.known.values()]

        def judged(scored: tuple[Candidate, Record, float]) -> float:
            candidate, _, loss = scored
            penalised = self._kind == "log-mean"
            return loss + (payload_penalty(candidate.payload, tree.network.samples) if penalised else 0.0)

        return [
            Scored(msgspec.structs.replace(candidate, group=0), loss, policy_of(tree, candidate, record.rows))
            for candidate, record, loss in sorted(scored, key=judged)
            if math.isfinite(loss)
        ]

    def _compared(self, space: Space) -> list[tuple[Candidate, Record, float]]:
        """Return each mask once, with its comparable loss."""
        losses: dict[Payload, dict[Trial, float]] = {}
        known: dict[tuple[Payload, Slots], tuple[Candidate, Record]] = {}
        for candidate, record in self.known.values():
            slots = slots_of(space, candidate)
            losses.setdefault(candidate.payload, {})[Trial(slots, candidate.group)] = record.loss
            known.setdefault((candidate.payload, slots), (candidate, record))
        return [(*known[of], loss) for of, loss in comparable_losses(space, losses).items()]

    def _add(self, candidate: Candidate, record: Record, *, replayed: bool = False) -> None:
        self.known[_label(candidate)] = candidate, record
        lowest = min(record.loss for other, record in self.known.values() if other.group == candidate.group)
        self._bar.advance(f"best {lowest:.3g}", replayed=replayed, forwards=self.forwards)


def _label(candidate: Candidate) -> str:
    return f"{candidate.key} on group {candidate.group}" if candidate.group else candidate.key


def policy_of(tree: Tree, candidate: Candidate, rows: Sequence[CoefficientRows]) -> Policy:
    """Return the policy with these coefficients; branches that agree in everything share an entry."""
    branches = tree.network.denoiser.branches
    return Policy.of(candidate.payload, {name: [row.get(name, ()) for row in rows] for name in branches})


def not_finite(message: str) -> CompileError:
    """Return the error of a search in which something is not finite."""
    return CompileError(
        message,
        remedy=worded(
            "check that the full run works in the profile's dtype; try another search or budget",
            "check that the network's own run of all steps is finite; try another search or budget",
        ),
    )
