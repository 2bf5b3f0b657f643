"""Conditioning: what rollouts start from. A branch is conditioned on one tensor, or on several by name.

The first dimension of every tensor counts samples, even where all samples share a value (position ids, a guidance
scale). Samples of a prompt set can then be selected in the same way for every model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

Condition = Tensor | Mapping[str, Tensor]
"""The condition of one branch: a tensor (n, ...), or name -> tensor (n, ...)."""


def map_condition(condition: Condition, change: Callable[[Tensor], Tensor]) -> Condition:
    """Return the condition with every tensor changed."""
    if isinstance(condition, Tensor):
        return change(condition)
    return {name: change(value) for name, value in condition.items()}


def named_tensors(condition: Condition) -> Mapping[str, Tensor]:
    """Return the condition's tensors by name; a single unnamed one is called ""."""
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
        return self._map(lambda tensor: tensor[first:last])

    def rows(self, chosen: Sequence[int]) -> Self:
        """Return the chosen samples, in that order."""
        return self._map(lambda tensor: tensor[list(chosen)])

    def to(self, device: torch.device) -> Self:
        """Return a copy on a device."""
        return self._map(lambda tensor: tensor.to(device))

    def _map(self, change: Callable[[Tensor], Tensor]) -> Self:
        embeddings = {name: map_condition(value, change) for name, value in self.embeddings.items()}
        return replace(self, embeddings=embeddings, noise=change(self.noise))
