"""Parts: what a pipeline class brings to an export beside its denoiser. One module a class implements it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from budc.compiler.export.flux import FluxComponents
from budc.compiler.export.modules import ExportModule
from budc.compiler.export.wan import WanComponents
from budc.policies.profile import ModelProfile
from budc.runtimes.exported.manifest import TextRule
from budc.schema.errors import UnsupportedModel


class Components(Protocol):
    """Text encoders, VAE decoder and tokenizers of one folder."""

    @property
    def guidance(self) -> float | None:
        """The scale that the denoiser's graphs have built in, None where it is no input of the network."""

    @property
    def condition(self) -> nn.Module:
        """A module that takes (encoder_hidden_states, pooled_projections) and returns the adapter's condition."""

    def drawn(self, latents: Tensor) -> tuple[int, ...]:
        """Return the shape in which the noise of one sample of `latents` (N, ...) is drawn, before it is packed."""

    def save_tokenizers(self, folder: Path, prompts: Sequence[str]) -> tuple[TextRule, TextRule | None]:
        """Write the tokenizers below `folder`: of the tokens' states, and of the pooled state if there is one."""

    def text_form(self, prompts: Sequence[str]) -> ExportModule:
        """Return the form of all text encoders together, called with `prompts`."""

    def decoder_form(self, latents: Tensor) -> ExportModule:
        """Return the VAE decoder's form, in float32, in which the compiler decodes too."""


def load_components(folder: Path, profile: ModelProfile, dtype: torch.dtype) -> Components:
    """Load what is exported beside the denoiser.

    Raises:
        UnsupportedModel: a pipeline of a class that cannot be exported, or a profile without a text length.
        WeightsMissing: a part cannot be loaded.
    """
    known: dict[str, Callable[..., Components]] = {
        "WanPipeline": WanComponents,
        "FluxPipeline": FluxComponents,
    }
    if profile.pipeline_class not in known:
        raise UnsupportedModel(
            f"cannot export a {profile.pipeline_class}, only {' and '.join(known)}",
            remedy="run its policies in diffusers",
        )
    if profile.text_tokens is None:
        raise UnsupportedModel(f"{profile.name}: the profile fixes no text length to export for")
    return known[profile.pipeline_class](folder, profile, dtype)
