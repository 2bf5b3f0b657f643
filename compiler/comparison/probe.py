"""Probe: a transformer's first blocks alone, and what share of all blocks they are.

Hooks read the hidden state before the first block and after the last of the probe, which ends the forward there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor

from budc.compiler.comparison.setting import ModelSetting
from budc.compiler.denoisers.conditioning import Condition, map_condition
from budc.runtimes.sampling.families import Span, family_of


class _ProbeDone(Exception):  # noqa: N818
    """Ends a forward after the probe's last block."""


class Probe:
    """The first `depth` blocks of a setting's transformer."""

    def __init__(self, setting: ModelSetting, depth: int) -> None:
        self._setting, self._depth = setting, depth
        self._entering: Tensor | None = None
        self._leaving: Tensor | None = None

    @property
    def share(self) -> float:
        """Parameters of the probe's blocks over those of all blocks, as which the cost of a probe is counted."""
        sizes: list[int] = [
            sum(weight.numel() for weight in block.parameters()) for block in self._blocks(every=True)
        ]
        return sum(sizes[: self._depth]) / sum(sizes)

    @torch.no_grad()
    def __call__(self, latents: Tensor, timestep: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        """Return the hidden state (N, ...) before the first block and after the probe, float32 on the CPU."""
        model = self._setting.model
        moved = map_condition(condition, lambda tensor: tensor.to(model.device))
        inputs = model.adapter.inputs(moved, latents.to(model.device), timestep.to(model.device))
        with self._hooked(), suppress(_ProbeDone):
            # Asked for each time: between two calls the denoiser may have left the device.
            model.denoiser(**inputs, return_dict=False)
        entering, leaving = self._entering, self._leaving
        self._entering = self._leaving = None
        assert entering is not None
        assert leaving is not None
        return entering.float().cpu(), leaving.float().cpu()

    def _spans(self) -> tuple[Span, ...]:
        return family_of(self._setting.model.denoiser).spans

    def _blocks(self, *, every: bool = False) -> list[Any]:
        network: Any = self._setting.model.denoiser
        return [
            block for span in self._spans()[: None if every else 1] for block in getattr(network, span.name)
        ]

    @contextmanager
    def _hooked(self) -> Iterator[None]:
        blocks = self._blocks()[: self._depth]
        handles = [
            blocks[0].register_forward_pre_hook(self._enter, with_kwargs=True),
            blocks[-1].register_forward_hook(self._leave),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, block: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        self._entering = named["hidden_states"] if "hidden_states" in named else given[0]

    def _leave(self, block: Any, given: tuple[Any, ...], output: Any) -> None:
        returns = self._spans()[0].returns.split(", ")
        self._leaving = output if len(returns) == 1 else output[returns.index("hidden")]
        raise _ProbeDone
