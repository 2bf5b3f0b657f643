"""Loading the pipeline that an artifact names, as its profile deploys it, from local safetensors alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from budc.schema.errors import UnsupportedModel, UsageError

if TYPE_CHECKING:
    from budc.policies.profile import ModelProfile
    from budc.schema.policy import PolicyDocument


_SAME_DTYPE = ("FluxPipeline",)
"""Pipelines that do not cast latents to the VAE's dtype before they decode."""


def profile_of(document: PolicyDocument) -> ModelProfile:
    """Return the profile of the model that a policy was made for.

    Raises:
        UnsupportedModel: this release has none of that name, or one of another pipeline class.
    """
    from budc.policies.profile import load_profile

    model = document.model
    try:
        profile = load_profile(model.profile)
    except UsageError as error:
        raise UnsupportedModel(
            f"{document.name} is a policy for the model profile {model.profile}, which this release does not have"
        ) from error
    if profile.pipeline_class != model.pipeline_class:
        raise UnsupportedModel(
            f"{document.name} is a policy for a {model.pipeline_class}, "
            f"but the model profile {profile.name} is a {profile.pipeline_class}"
        )
    return profile


def load_pipeline(profile: ModelProfile, folder: Path) -> Any:
    """Return the pipeline in `folder` with the profile's scheduler, on the first CUDA device or the CPU.

    The transformer and the text encoder are in the profile's dtype; the VAE stays in float32, in which the
    compiler decodes too, unless the pipeline hands it latents in the transformer's dtype.

    Raises:
        WeightsMissing: a part is missing, or there only as something other than safetensors.
    """
    import diffusers
    import torch

    from budc.runtimes.sampling.loading import loading

    dtype = getattr(torch, profile.dtype)
    dtypes = {"default": dtype, "vae": dtype if profile.pipeline_class in _SAME_DTYPE else torch.float32}
    with loading(folder):
        pipe = getattr(diffusers, profile.pipeline_class).from_pretrained(
            folder, dtype=dtypes, use_safetensors=True, local_files_only=True
        )
    scheduler = getattr(diffusers, profile.scheduler)
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config, **profile.scheduler_config)
    return pipe.to("cuda" if torch.cuda.is_available() else "cpu")
