"""The tolerance to which a report's figures must be reproduced. Imports no tensor library."""

from __future__ import annotations

from budc.schema.errors import UsageError
from budc.schema.policy import REPLAY_TOLERANCE, Quality


def agreed_tolerance(report: Quality, stricter: float | None = None) -> float:
    """Return the relative tolerance that a report states, or the stricter one that the user gives.

    Raises:
        UsageError: the given one is laxer; a report is not held to less than it promises.
    """
    stated = REPLAY_TOLERANCE if report.replay_tolerance is None else report.replay_tolerance
    if stricter is not None and stricter > stated:
        raise UsageError(
            f"--tolerance: {stricter:g} is laxer than the {stated:g} that the report states",
            remedy=f"--tolerance of at most {stated:g}, or leave it out",
        )
    return stated if stricter is None else stricter
