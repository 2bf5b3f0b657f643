"""Forms: the modules that become graphs, each with what it is called with.

The denoiser has three: its blocks computed, its blocks replaced by a residual, and the same with the residual
predicted inside. They are `Trunk`'s two modes, so nothing of a model's forward is written again here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from budc.compiler.models.pipelines import PipelineAdapter
from budc.runtimes.exported.manifest import CONDITIONS, INPUTS, OUTPUTS, TERMS, GraphName
from budc.runtimes.sampling.trunk import Trunk, combine

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

UNUSED = torch.zeros(())
"""Stands for an input that a module does not use. It has no batch, of which a graph could ask it for the size."""
_FIXED = frozenset({"coefficients"})


@dataclass(frozen=True)
class ExportModule:
    """One module, to be exported under a name."""

    name: GraphName
    module: nn.Module
    inputs: Mapping[str, Tensor]
    """By the names in `INPUTS`, `SAMPLES` samples each; the graph leaves out what the module does not use."""
    returned: tuple[str, ...] = ()
    """Names of what the module returns; all of `OUTPUTS` by default."""

    def __post_init__(self) -> None:
        assert tuple(self.inputs) == INPUTS[self.name]

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what the module returns, in order."""
        return self.returned or OUTPUTS[self.name]

    def batch(self, size: int) -> dict[str, Tensor]:
        """Return the inputs of the first `size` samples."""
        return {name: value[:size] if self.is_batched(name) else value for name, value in self.inputs.items()}

    def is_batched(self, name: str) -> bool:
        """Whether the first dimension of an input is the batch."""
        return name not in _FIXED and self.inputs[name].ndim > 0

    def run(self, size: int) -> tuple[Tensor, ...]:
        """Return what the module makes of the first `size` samples."""
        with torch.no_grad():
            made = self.module(*self.batch(size).values())
        return made if isinstance(made, tuple) else (made,)


class _Compute(nn.Module):
    """`condition` makes the adapter's condition of what the text encoders return."""

    def __init__(self, trunk: Trunk, adapter: PipelineAdapter, condition: nn.Module) -> None:
        super().__init__()
        self.transformer = trunk.transformer
        self.condition = condition
        self.trunk, self.adapter = trunk, adapter

    def forward(
        self, latents: Tensor, timestep: Tensor, text: Tensor, pooled: Tensor
    ) -> tuple[Tensor, Tensor]:
        inputs = self.adapter.inputs(self.condition(text, pooled), latents, timestep)
        output, residual = self.trunk.compute(**inputs)
        return self.adapter.velocity(output), residual


class _Reuse(_Compute):
    def forward(  # type: ignore[override]
        self, latents: Tensor, timestep: Tensor, text: Tensor, pooled: Tensor, residual: Tensor
    ) -> Tensor:
        inputs = self.adapter.inputs(self.condition(text, pooled), latents, timestep)
        return self.adapter.velocity(self.trunk.reuse(residual, **inputs))


class _ReuseTerms(_Reuse):
    def forward(  # type: ignore[override]
        self,
        latents: Tensor,
        timestep: Tensor,
        text: Tensor,
        pooled: Tensor,
        residual_0: Tensor,
        residual_1: Tensor,
        residual_2: Tensor,
        coefficients: Tensor,
    ) -> Tensor:
        residual = combine(coefficients.unbind(), (residual_0, residual_1, residual_2))
        return super().forward(latents, timestep, text, pooled, residual)


def denoiser_modules(
    transformer: nn.Module,
    adapter: PipelineAdapter,
    condition: nn.Module,
    latents: Tensor,
    timesteps: Tensor,
    encoded: Mapping[str, Tensor],
) -> list[ExportModule]:
    """Return the three forms of a denoiser, called with `SAMPLES` samples each.

    Args:
        transformer: the denoiser.
        adapter: of its pipeline.
        condition: see `budc.compiler.export.components.Components`.
        latents: (n, ...).
        timesteps: (n,), as the scheduler has them.
        encoded: what the text encoders' form returned, by name.
    """
    trunk = Trunk(transformer)
    text = next(iter(encoded.values()))
    inputs = {"hidden_states": latents.to(text.dtype), "timestep": timesteps.float()}
    inputs |= {name: encoded.get(name, UNUSED) for name in CONDITIONS}
    compute = ExportModule("compute", _Compute(trunk, adapter, condition), inputs)
    _, residual = compute.run(SAMPLES)
    # Residuals that differ, and coefficients of the size that predictors have.
    residuals = {f"residual_{index}": residual.roll(index, 0) for index in range(TERMS)}
    coefficients = {"coefficients": torch.tensor([2.0, -1.5, 0.5])}
    return [
        compute,
        ExportModule("reuse", _Reuse(trunk, adapter, condition), {**inputs, "residual": residual}),
        ExportModule(
            "reuse_terms",
            _ReuseTerms(trunk, adapter, condition),
            {**inputs, **residuals, **coefficients},
        ),
    ]
