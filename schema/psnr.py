"""PSNR from a mean squared error, for frames in 0..1."""

import math
from typing import Final

PSNR_CAP: Final = 120.0
"""dB given to frames that agree to the last bit or nearly so; JSON has no infinity."""


def psnr_of(error: float) -> float:
    """Return the PSNR, in dB, of a mean squared error."""
    return PSNR_CAP if error <= 10 ** (-PSNR_CAP / 10) else -10 * math.log10(error)
