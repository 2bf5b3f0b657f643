"""Comparable losses: those of one group of prompts as they are, those of several as the surrogate's means over all.

A mask is scored on one group, whose prompts may be easy. So losses on different groups are no ranking.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from budc.compiler.search.moves import Slots, Trial
from budc.compiler.search.space import Space
from budc.schema.policy import Payload


def comparable_losses(
    space: Space, losses: Mapping[Payload, Mapping[Trial, float]]
) -> dict[tuple[Payload, Slots], float]:
    """Return the loss of each mask with each payload, on all groups; infinite where it is so on one.

    A payload that was not scored on every group, because another was better on the first, is left out.
    """
    if space.groups == 1:
        return {
            (payload, trial.slots): loss
            for payload, scored in losses.items()
            for trial, loss in scored.items()
        }
    # Here, because it imports torch: see `budc.compiler.search.promising`.
    from budc.compiler.search.surrogate import Surrogate

    compared: dict[tuple[Payload, Slots], float] = {}
    for payload, scored in losses.items():
        if len({trial.group for trial in scored}) == space.groups:
            means = Surrogate(space, payload, scored).losses
            infinite = {trial.slots for trial, loss in scored.items() if not math.isfinite(loss)}
            compared |= {
                (payload, slots): math.inf if slots in infinite else mean for slots, mean in means.items()
            }
    return compared
