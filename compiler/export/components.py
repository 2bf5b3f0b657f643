"""Components of a pipeline that are exported beside its denoiser. One module a pipeline class implements them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from budc.compiler.export.flux import FluxComponents
from budc.compiler.export.sources import GraphSource
from budc.compiler.export.wan import WanComponents
from budc.policies.profile import ModelProfile
from budc.runtimes.exported.manifest import TextRule
from budc.schema.errors import UnsupportedModel


class PipelineComponents(Protocol):
    """Text encoders, VAE decoder and tokenizers of one folder."""

    @property
    def guidance(self) -> float | None:
        """The guidance scale to build into the denoiser's graphs; None where the network does not take it."""

    @property
    def condition(self) -> nn.Module:
        """A module from (encoder_hidden_states, pooled_projections) to the pipeline adapter's condition."""

    def noise_shape(self, latents: Tensor) -> tuple[int, ...]:
        """Return the shape in which the pipeline draws the noise of one sample of `latents` (N, ...)."""

    def save_tokenizers(self, folder: Path, prompts: Sequence[str]) -> tuple[TextRule, TextRule | None]:
        """Write the tokenizers below `folder`, and compare them with the pipeline's on `prompts`.

        Return the rule for token ids, and the rule for pooled token ids if the model pools.
        """

    def text_encoder_source(self, prompts: Sequence[str]) -> GraphSource:
        """Return the source of all text encoders together, with `prompts` as example inputs."""

    def vae_decoder_source(self, latents: Tensor) -> GraphSource:
        """Return the source of the VAE decoder, in float32, as the compiler decodes."""


def load_components(folder: Path, profile: ModelProfile, dtype: torch.dtype) -> PipelineComponents:
    """Load what is exported beside the denoiser of the model in `folder`; text encoders in `dtype`.

    Raises:
        UnsupportedModel: the pipeline's class cannot be exported, or the profile has no text length.
        WeightsMissing: a component cannot be loaded.
    """
    classes: dict[str, Callable[..., PipelineComponents]] = {
        "WanPipeline": WanComponents,
        "FluxPipeline": FluxComponents,
    }
    if profile.pipeline_class not in classes:
        raise UnsupportedModel(
            f"cannot export a {profile.pipeline_class}, only {' and '.join(classes)}",
            remedy="run its policies in diffusers",
        )
    if profile.text_tokens is None:
        raise UnsupportedModel(f"{profile.name}: the profile has no text_tokens, which an export needs")
    return classes[profile.pipeline_class](folder, profile, dtype)
