"""Promising: which mask to roll out next, among those within two moves of the best few."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping

from budc.compiler.search.moves import Slots, Trial, all_relocations, run_shifts
from budc.compiler.search.space import Space
from budc.schema.policy import Payload

CENTRES, BEAM, REACH = 3, 5, 3
"""Of how many of the best masks the neighbours are ranked; how many of these have their own neighbours ranked, and how
many steps those may be away."""


def most_promising(
    space: Space, payload: Payload, losses: Mapping[Trial, float], others: Collection[Slots] = ()
) -> Slots | None:
    """Return the mask that is most worth rolling out next, None where all have been.

    `losses` are those of the masks that have been. More are looked for among `others` and around the best: one move
    away and, from the most promising of all these, two. A move relocates one computed step, or shifts a run of them.
    """
    # Here, because it imports torch: the names and the checks of all searches are needed before torch is loaded.
    from budc.compiler.search.surrogate import Surrogate

    surrogate = Surrogate(space, payload, losses)
    known = surrogate.losses
    ranked = sorted(known, key=known.__getitem__)
    for first in range(0, len(ranked), CENTRES):
        improvements: dict[Slots, float] = {}
        centres, further = ranked[first : first + CENTRES], {*others}
        for distances in (None, range(REACH + 1)):
            near = further | {
                slots
                for origin in centres
                for slots in (
                    *all_relocations(space, origin, distances),
                    *run_shifts(space, origin, REACH),
                )
            }
            fresh = sorted(near - known.keys() - improvements.keys())
            if fresh:
                improvements |= zip(fresh, surrogate.improvement(fresh), strict=True)
            centres, further = heapq.nlargest(BEAM, improvements, key=improvements.__getitem__), set()
        if centres:
            return centres[0]
    return None
