"""The second stage of arXiv 2606.13496 as its authors configured it. No framework is needed: a plan counts it."""

from __future__ import annotations

import math
from typing import NamedTuple


class Configuration(NamedTuple):
    """What differs between the released configurations: samples in all, those of a batch, the bound of the gradient."""

    samples: int
    batch: int
    clip: float

    def epochs(self, samples: int) -> int:
        """Return how often so many samples are gone through."""
        return math.ceil(self.samples / samples)


FLUX = Configuration(100, 8, 1.0)
WAN = Configuration(200, 1, 0.2)


def configuration(branches: int) -> Configuration:
    """Return that of FLUX.1-dev for a network of one branch, that of Wan2.1 for one with classifier-free guidance."""
    return FLUX if branches == 1 else WAN
