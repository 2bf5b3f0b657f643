"""Payload penalty: what is added to the loss with another payload before it is compared with that of the velocity.

A reused velocity runs no network. And on few prompts the trunk residual's coefficients fit these alone: with five to
eight it has been ahead by up to half in log loss where it was behind on more (docs/adr/0015-efforts.md).
"""

from __future__ import annotations

from budc.schema.policy import Payload

PENALTY = 5.0
"""The penalty in log loss, times the number of prompts."""


def payload_penalty(payload: Payload, prompts: int) -> float:
    """Return what is added to a log loss that is the mean over so many prompts."""
    return 0.0 if payload == "velocity" else PENALTY / prompts
