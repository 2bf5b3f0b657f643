"""Conditioning: what rollouts start from. A branch is conditioned on one tensor, or on several by name.

Every tensor's first dimension counts samples, also of what all samples share (position ids, a guidance scale): so
that rows of a prompt set are taken in one way, whatever the network wants.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

Condition = Tensor | Mapping[str, Tensor]
"""One branch's: a tensor (n, ...), or name -> tensor (n, ...)."""


def map_condition(condition: Condition, change: Callable[[Tensor], Tensor]) -> Condition:
    """Return the condition with every tensor changed."""
    if isinstance(condition, Tensor):
        return change(condition)
    return {name: change(value) for name, value in condition.items()}


def named_tensors(condition: Condition) -> Mapping[str, Tensor]:
    """Return the condition's tensors by name; a lone one is called ""."""
    return {"": condition} if isinstance(condition, Tensor) else condition


@dataclass(frozen=True)
class Conditioning:
    """What rollouts start from: each branch's condition, and noise (N, ...)."""

    embeddings: Mapping[str, Condition]
    noise: Tensor

    def __len__(self) -> int:
        return len(self.noise)

    def part(self, first: int, last: int) -> Self:
        """Return the samples first..last-1."""
        return self._each(lambda tensor: tensor[first:last])

    def rows(self, chosen: Sequence[int]) -> Self:
        """Return the chosen samples, in that order."""
        return self._each(lambda tensor: tensor[list(chosen)])

    def to(self, device: torch.device) -> Self:
        """Return all of it on a device."""
        return self._each(lambda tensor: tensor.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        embeddings = {name: map_condition(value, change) for name, value in self.embeddings.items()}
        return replace(self, embeddings=embeddings, noise=change(self.noise))
