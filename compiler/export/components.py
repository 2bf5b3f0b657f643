"""Components of a pipeline that are exported beside its denoiser. One module a pipeline class implements them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Protocol

import torch
from torch import Tensor

from budc.compiler.export.denoiser_call import DenoiserCall
from budc.compiler.export.sources import GraphSource
from budc.policies.profile import ModelProfile
from budc.runtimes.exported.manifest import TextRule
from budc.schema.errors import UnsupportedModel


class PipelineComponents(Protocol):
    """Text encoders, VAE decoder and tokenizers of one folder."""

    @property
    def guidance(self) -> float | None:
        """The guidance scale to build into the denoiser's graphs; None where the network does not take it."""

    @property
    def call(self) -> DenoiserCall:
        """How the denoiser's graphs call it."""

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
        UnsupportedModel: the pipeline's class cannot be exported, or the profile has no text length and the pipeline
            no default.
        WeightsMissing: a component cannot be loaded.
    """
    if profile.pipeline_class not in _COMPONENTS:
        raise UnsupportedModel(
            f"cannot export a {profile.pipeline_class}, only {', '.join(_COMPONENTS)}",
            remedy="run its policies in diffusers",
        )
    module, has_length = _COMPONENTS[profile.pipeline_class]
    if profile.text_tokens is None and not has_length:
        raise UnsupportedModel(f"{profile.name}: the profile has no text_tokens, which an export needs")
    components: PipelineComponents = resolve_name(module)(folder, profile, dtype)
    return components


_COMPONENTS: Mapping[str, tuple[str, bool]] = {
    "FluxPipeline": ("budc.compiler.export.flux:FluxComponents", False),
    "QwenImagePipeline": ("budc.compiler.export.qwen_image:QwenImageComponents", True),
    "WanPipeline": ("budc.compiler.export.wan:WanComponents", False),
    "ZImagePipeline": ("budc.compiler.export.z_image:ZImageComponents", True),
}
"""Pipeline class → its components as module:class, and whether the pipeline has a text length of its own."""
