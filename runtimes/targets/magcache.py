"""A mask as ratios of MagCache (arXiv 2506.09045), which diffusers and LightX2V both implement.

    error_k = Σ |1 - Π ratio|     over the steps since the last computed one; above the threshold, step k computes

A ratio of 1 adds no error, so the step reuses; `COMPUTE` exceeds every threshold, so it computes. What is reused is the
newest trunk residual, unchanged: such a mask with plain reuse runs as the policy says.
"""

from typing import Final

from budc.schema.mask import StepMask

REUSE: Final = 1.0
COMPUTE: Final = 1e6
THRESHOLD: Final = 0.5
"""Between the errors of the two ratios."""


def ratios(mask: StepMask) -> list[float]:
    """Return one ratio a step."""
    return [COMPUTE if compute else REUSE for compute in mask]
