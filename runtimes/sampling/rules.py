"""Fixed rules of reuse: the coefficients follow from the mask alone, nothing is fitted.

    plain     h_t ≈ h_j                                        j: the newest computed step before t
    linear    h_t ≈ h_j + (h_j - h_i) · (t - j) / (j - i)      i < j: the two newest

Other engines reuse by such a rule. The compiler searches with it, and what is written for the engine is held to it.
"""

from collections.abc import Sequence
from typing import Final, Literal

from budc.schema.mask import StepMask

FixedRule = Literal["plain", "linear"]
FIXED_RULES: Final[tuple[FixedRule, ...]] = ("plain", "linear")


def fixed_row(rule: FixedRule, step: int, computed: Sequence[int]) -> tuple[float, ...]:
    """Return the coefficients of a reused step, newest first.

    Args:
        rule: the rule; where one step alone was computed, `linear` repeats it.
        step: the reused step.
        computed: the steps computed before it, newest first, at least one.
    """
    if rule == "plain" or len(computed) < 2:
        return (1.0,)
    last, previous = computed[:2]
    slope = (step - last) / (last - previous)
    return (1.0 + slope, -slope)


def fixed_rows(rule: FixedRule, mask: StepMask) -> list[tuple[float, ...]]:
    """Return the coefficients of every step of a mask, none where it computes."""
    rows: list[tuple[float, ...]] = []
    computed: list[int] = []
    for step, compute in enumerate(mask):
        rows.append(() if compute else fixed_row(rule, step, computed))
        if compute:
            computed.insert(0, step)
    return rows
