"""Preference: by how much one payload must be ahead of the other before it is taken.

A reused velocity runs no network. And on few prompts the trunk residual's coefficients fit these alone: with five to
eight it has been ahead by up to half in log loss where it was behind on more (docs/adr/0015-efforts.md).
"""

from __future__ import annotations

from budc.schema.policy import Payload

LEAD = 5.0
"""By how much a loss with another payload must be below that with the velocity, times the number of prompts."""


def handicap(payload: Payload, prompts: int) -> float:
    """Return what is added to a log loss, the mean over so many prompts, where payloads are compared by it."""
    return 0.0 if payload == "velocity" else LEAD / prompts
