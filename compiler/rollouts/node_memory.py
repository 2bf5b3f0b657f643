"""How many rollouts the tree remembers; without a framework, so that a plan can count what is rolled out again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import Generic, TypeVar

from budc.schema.policy import Payload

MEMORY = 16 << 30
"""Bytes of nodes that are remembered, by default. What a host has no room for lies on its disk."""

P = TypeVar("P", bound=Hashable)


def node_bytes(payload: Payload, latents: int, residual: int, computing: int, steps: int) -> int:
    """Return how many bytes a node takes for one sample, beside what it shares with the node before.

    Velocities that are cached give those of all steps again. With another payload, these are kept as well.

    Args:
        payload: what a branch caches.
        latents: bytes of the sample's latents, in float32; a velocity is as large.
        residual: bytes of what the trunk records.
        computing: how many branches compute at its step.
        steps: how many steps it goes before the next node.
    """
    if payload == "velocity":
        return latents * computing
    return residual * computing + latents * steps


class PrefixMemory(Generic[P]):
    """The prefixes that are remembered, in so many bytes.

    What was used longest ago is forgotten first; of one candidate that is the longest prefix, as shorter ones serve
    more candidates.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._total = limit, 0
        self._sizes: OrderedDict[P, int] = OrderedDict()

    def __contains__(self, prefix: object) -> bool:
        return prefix in self._sizes

    def use(self, path: Sequence[P], sizes: Sequence[int]) -> list[P]:
        """Remember the prefixes of a candidate, shortest first; return what is forgotten for them, none of these."""
        for prefix, size in zip(reversed(path), reversed(sizes), strict=True):
            known = self._sizes.get(prefix, 0)
            self._sizes[prefix] = max(known, size)
            self._total += self._sizes[prefix] - known
            self._sizes.move_to_end(prefix)
        forgotten = []
        while self._total > self._limit and len(self._sizes) > len(path):
            prefix, size = self._sizes.popitem(last=False)
            self._total -= size
            forgotten.append(prefix)
        return forgotten
