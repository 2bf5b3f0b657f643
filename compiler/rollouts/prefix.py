"""Prefix: what a candidate does up to a computed step. It names a node of the tree of rollouts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from budc.compiler.search.space import Candidate, Rule
from budc.schema.policy import Payload


class Prefix(NamedTuple):
    """What a candidate does up to and including a computed step: (step, branches that compute there), in order."""

    payload: Payload
    rule: Rule
    events: tuple[tuple[int, tuple[str, ...]], ...]

    @property
    def step(self) -> int:
        """The last computed step."""
        return self.events[-1][0]

    @property
    def computing(self) -> tuple[str, ...]:
        """The branches that compute there."""
        return self.events[-1][1]

    @property
    def parent(self) -> Prefix | None:
        """The prefix up to the computed step before; None where this is the first."""
        return self._replace(events=self.events[:-1]) if len(self.events) > 1 else None


def prefixes(candidate: Candidate, branches: Sequence[str]) -> list[Prefix]:
    """Return a candidate's prefixes, shortest first: one for every step at which some branch computes."""
    masks = candidate.masks if len(candidate.masks) > 1 else candidate.masks * len(branches)
    events = []
    for step, computed in enumerate(zip(*masks, strict=True)):
        if any(computed):
            events.append((step, tuple(name for name, own in zip(branches, computed, strict=True) if own)))
    return [
        Prefix(candidate.payload, candidate.rule, tuple(events[: index + 1])) for index in range(len(events))
    ]
