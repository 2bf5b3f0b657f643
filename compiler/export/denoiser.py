"""The denoiser's three graphs: blocks computed, blocks replaced by a residual, and that residual predicted inside.

They run the two modes of `Trunk`, so that nothing of a model's forward is written a second time here.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from budc.compiler.export.denoiser_call import DenoiserCall
from budc.compiler.export.sources import EXAMPLES, UNUSED_INPUT, GraphSource
from budc.runtimes.exported.signatures import CONDITIONS, TERMS, denoiser_graph
from budc.runtimes.sampling.families import family_named
from budc.runtimes.sampling.trunk import Trunk, combine


class _Compute(nn.Module):
    """Velocity and trunk residual."""

    def __init__(self, trunk: Trunk, call: DenoiserCall) -> None:
        super().__init__()
        self.transformer = trunk.transformer
        self.trunk, self.call = trunk, call

    def forward(
        self, latents: Tensor, timestep: Tensor, text: Tensor, pooled: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        output, residual = self.trunk.compute(**self.call(latents, timestep, text, pooled, mask))
        return self.call.velocity(output), residual


class _Reuse(_Compute):
    """The velocity, with `residual` in place of the blocks."""

    def forward(  # type: ignore[override]
        self, latents: Tensor, timestep: Tensor, text: Tensor, pooled: Tensor, mask: Tensor, residual: Tensor
    ) -> Tensor:
        inputs = self.call(latents, timestep, text, pooled, mask)
        return self.call.velocity(self.trunk.reuse(residual, **inputs))


class _ReuseTerms(_Reuse):
    """The velocity, with a combination of residuals in place of the blocks."""

    def forward(  # type: ignore[override]
        self,
        latents: Tensor,
        timestep: Tensor,
        text: Tensor,
        pooled: Tensor,
        mask: Tensor,
        residual_0: Tensor,
        residual_1: Tensor,
        residual_2: Tensor,
        coefficients: Tensor,
    ) -> Tensor:
        residual = combine(coefficients.unbind(), (residual_0, residual_1, residual_2))
        return super().forward(latents, timestep, text, pooled, mask, residual)


def denoiser_sources(
    transformer: nn.Module,
    call: DenoiserCall,
    latents: Tensor,
    timesteps: Tensor,
    embeddings: Mapping[str, Tensor],
    denoiser: int = 0,
) -> list[GraphSource]:
    """Return the sources of a denoiser's three graphs, with `EXAMPLES` samples each.

    Args:
        transformer: the denoiser.
        call: how its model's graphs call it.
        latents: (n, ...).
        timesteps: (n,), as the scheduler has them.
        embeddings: the text encoders' outputs, by name.
        denoiser: which one of the model's it is, 0 for the first.
    """
    family = None if call.family_class is None else family_named(call.family_class)
    trunk = Trunk(call.network(transformer), family=family)
    text = next(iter(embeddings.values()))
    inputs = {"hidden_states": latents.to(text.dtype), "timestep": timesteps.float()}
    inputs |= {name: embeddings.get(name, UNUSED_INPUT) for name in CONDITIONS}
    compute = GraphSource(denoiser_graph("compute", denoiser), _Compute(trunk, call), inputs)
    _, residual = compute.run(EXAMPLES)
    # Three different residuals, and coefficients as large as those of real predictors.
    residuals = {f"residual_{index}": residual.roll(index, 0) for index in range(TERMS)}
    coefficients = {"coefficients": torch.tensor([2.0, -1.5, 0.5])}
    return [
        compute,
        GraphSource(
            denoiser_graph("reuse", denoiser),
            _Reuse(trunk, call),
            {**inputs, "residual": residual},
        ),
        GraphSource(
            denoiser_graph("reuse_terms", denoiser),
            _ReuseTerms(trunk, call),
            {**inputs, **residuals, **coefficients},
        ),
    ]
