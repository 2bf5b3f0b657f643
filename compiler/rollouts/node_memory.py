"""How many rollouts the tree remembers; without a framework, so that a plan can count what is rolled out again."""

from __future__ import annotations

MEMORY = 4 << 30
"""Bytes of nodes that are remembered, by default."""


def node_bytes(latents: int, residual: int, branches: int, steps: int) -> int:
    """Return about how many bytes a node takes for one sample, whose latents and trunk residual take so many.

    It holds what every branch has cached last, and the velocities until the next computed step.
    """
    return latents * (branches + steps // 4) + branches * residual
