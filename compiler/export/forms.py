"""Forms: the modules that become graphs, each with what it is called with.

The denoiser has three: its blocks computed, its blocks replaced by a residual, and the same with the residual
predicted inside. They are `Trunk`'s two modes, so nothing of a model's forward is written again here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from budc.runtimes.manifest import INPUTS, TERMS, GraphName
from budc.runtimes.trunk import Trunk, combine

SAMPLES = 3
"""Samples in a form's inputs: two are traced, one and all of them are compared."""

FILES: Mapping[GraphName, str] = {
    "compute": "transformer/compute.onnx",
    "reuse": "transformer/reuse.onnx",
    "reuse_terms": "transformer/reuse_terms.onnx",
    "text_encoder": "text_encoder/model.onnx",
    "vae_decoder": "vae_decoder/model.onnx",
}
WEIGHTS: Mapping[GraphName, str] = {
    "compute": "transformer/weights.onnx.data",
    "reuse": "transformer/weights.onnx.data",
    "reuse_terms": "transformer/weights.onnx.data",
    "text_encoder": "text_encoder/model.onnx.data",
    "vae_decoder": "vae_decoder/model.onnx.data",
}
"""Where the weights of each graph lie: one file for all that a denoiser's graphs share."""

FIXED = frozenset({"coefficients"})
"""Inputs whose first dimension is not the batch."""


@dataclass(frozen=True)
class Form:
    """One module, to be exported under a name."""

    name: GraphName
    module: nn.Module
    inputs: Mapping[str, Tensor]
    """By the names in `INPUTS`, `SAMPLES` samples each."""

    def __post_init__(self) -> None:
        assert tuple(self.inputs) == INPUTS[self.name]

    def batch(self, size: int) -> dict[str, Tensor]:
        """Return the inputs of the first `size` samples."""
        return {name: value if name in FIXED else value[:size] for name, value in self.inputs.items()}

    def run(self, size: int) -> tuple[Tensor, ...]:
        """Return what the module makes of the first `size` samples."""
        with torch.no_grad():
            made = self.module(*self.batch(size).values())
        return made if isinstance(made, tuple) else (made,)


class _Compute(nn.Module):
    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.transformer = trunk.transformer
        self.trunk = trunk

    def forward(
        self, hidden_states: Tensor, timestep: Tensor, encoder_hidden_states: Tensor
    ) -> tuple[Tensor, Tensor]:
        return self.trunk.compute(
            hidden_states=hidden_states, timestep=timestep, encoder_hidden_states=encoder_hidden_states
        )


class _Reuse(_Compute):
    def forward(  # type: ignore[override]
        self, hidden_states: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, residual: Tensor
    ) -> Tensor:
        return self.trunk.reuse(
            residual,
            hidden_states=hidden_states,
            timestep=timestep,
            encoder_hidden_states=encoder_hidden_states,
        )


class _ReuseTerms(_Compute):
    def forward(  # type: ignore[override]
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        residual_0: Tensor,
        residual_1: Tensor,
        residual_2: Tensor,
        coefficients: Tensor,
    ) -> Tensor:
        return self.trunk.reuse(
            combine(coefficients.unbind(), (residual_0, residual_1, residual_2)),
            hidden_states=hidden_states,
            timestep=timestep,
            encoder_hidden_states=encoder_hidden_states,
        )


def denoiser_forms(transformer: nn.Module, inputs: Mapping[str, Tensor]) -> list[Form]:
    """Return the three forms of a denoiser; `inputs` are those of `compute`, `SAMPLES` samples each."""
    trunk = Trunk(transformer)
    compute = Form("compute", _Compute(trunk), inputs)
    _, residual = compute.run(SAMPLES)
    # Residuals that differ, and coefficients of the size that predictors have.
    residuals = {f"residual_{index}": residual.roll(index, 0) for index in range(TERMS)}
    coefficients = {"coefficients": torch.tensor([2.0, -1.5, 0.5])}
    return [
        compute,
        Form("reuse", _Reuse(trunk), {**inputs, "residual": residual}),
        Form("reuse_terms", _ReuseTerms(trunk), {**inputs, **residuals, **coefficients}),
    ]
