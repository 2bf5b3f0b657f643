"""Loading: a profile and a model folder become denoisers on a device and a scheduler."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import msgspec
import torch
from torch import nn

from budc.compiler.models.folder import (
    SCHEDULER_CONFIG,
    check_architecture,
    check_components,
    denoiser_files,
    read_index,
)
from budc.compiler.models.offload import Denoisers, Offload
from budc.compiler.models.pipelines import PipelineAdapter, adapter_for
from budc.compiler.models.supported import check_supported
from budc.policies.profile import ModelProfile
from budc.runtimes.sampling.families import family_named
from budc.runtimes.sampling.loading import loading, scheduler_class
from budc.runtimes.sampling.quantized_loading import load_denoiser
from budc.runtimes.sampling.scheduler_choice import deployed_scheduler
from budc.runtimes.sampling.schedulers import first_steps, sampler_binding
from budc.schema.policy import Expert, SamplerBinding


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to roll out: its denoisers, its scheduler, its folder, and the device."""

    profile: ModelProfile
    folder: Path
    adapter: PipelineAdapter
    denoisers: Denoisers
    """All of one class, in the order of the profile, which is that in which they run."""
    scheduler: Any
    device: torch.device

    @property
    def denoiser(self) -> nn.Module:
        """The first denoiser, on the device."""
        return self.denoisers.onloaded(0)

    @property
    def guidances(self) -> tuple[float, ...]:
        """The guidance scale of each denoiser."""
        profile = self.profile
        return (profile.guidance, *((profile.experts.guidance,) if profile.experts else ()))

    @property
    def boundaries(self) -> tuple[float, ...]:
        """The timesteps below which each denoiser after the first takes over."""
        experts = self.profile.experts
        return (experts.boundary * self.scheduler.config.num_train_timesteps,) if experts else ()

    def sampler(self, steps: int) -> SamplerBinding:
        """Return the sampler that the profile deploys, with its exact schedule of `steps` steps.

        With few steps a denoiser may have none. Its first step is then after the last one, and no policy can hold that.
        """
        return self.with_experts(
            sampler_binding(
                self.scheduler,
                steps,
                self.profile.guidance,
                family=family_named(next(iter(self.profile.denoisers.values()))),
                guidance_rule=self.profile.guidance_rule,
                image_tokens=self.adapter.image_tokens(self.folder, self.profile),
            )
        )

    def with_experts(self, sampler: SamplerBinding) -> SamplerBinding:
        """Return a sampler with the profile's guidance, and with the first step of each further denoiser."""
        names = list(self.profile.denoisers)[1:]
        firsts = first_steps(sampler.timesteps, self.boundaries)
        return msgspec.structs.replace(
            sampler,
            guidance=self.profile.guidance,
            experts=[
                Expert(denoiser=name, first_step=first, guidance=guidance)
                for name, first, guidance in zip(names, firsts, self.guidances[1:], strict=True)
            ],
        )


def load_model(
    profile: ModelProfile, folder: Path, device: torch.device, offload: Offload = "model"
) -> LoadedModel:
    """Load the scheduler from a local folder, and its denoisers when they are first needed.

    Raises:
        UnsupportedModel: the profile is not supported, or the folder holds another pipeline, denoiser class or size, or
            other experts.
        WeightsMissing, UnsafeWeights: see `denoiser_files`; or a file cannot be read. Weights themselves are read when
            a denoiser is first needed.
    """
    check_supported(profile)
    check_components(read_index(profile, folder), folder)
    check_architecture(profile, folder)
    denoiser_files(profile, folder)
    scheduler_type = scheduler_class(profile.scheduler, profile.name)
    with loading(folder / SCHEDULER_CONFIG):
        config = json.loads((folder / SCHEDULER_CONFIG).read_text(encoding="utf-8"))
        scheduler = deployed_scheduler(scheduler_type, config, profile.scheduler_config)
    load = [partial(_load_denoiser, profile, folder, name) for name in profile.denoisers]
    denoisers = Denoisers(load, device, offload)
    return LoadedModel(profile, folder, adapter_for(profile.pipeline_class), denoisers, scheduler, device)


def _load_denoiser(profile: ModelProfile, folder: Path, name: str) -> nn.Module:
    network_class, dtype = getattr(diffusers, profile.denoisers[name]), getattr(torch, profile.dtype)
    denoiser: nn.Module = load_denoiser(network_class, folder, name, dtype, profile.quantization)
    return denoiser.eval().requires_grad_(False)
