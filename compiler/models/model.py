"""Pass 1, load: a profile and a folder become a denoiser, a scheduler and their digests."""

from __future__ import annotations

import gc
import json
from dataclasses import dataclass
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
from budc.compiler.models.pipelines import PipelineAdapter, adapter_for
from budc.policies.profile import ModelProfile
from budc.runtimes.sampling.families import family_of
from budc.runtimes.sampling.loading import loading
from budc.runtimes.sampling.schedulers import first_steps, sampler_binding
from budc.schema.digest_cache import DigestCache
from budc.schema.digests import architecture_digest, check_rivals, file_digests
from budc.schema.errors import UnsupportedModel
from budc.schema.folder import resolve
from budc.schema.policy import (
    AdapterRule,
    DenoiserBinding,
    Expert,
    ModelBinding,
    SamplerBinding,
    Shape,
    Variant,
)


@dataclass(frozen=True)
class Model:
    """A model ready to roll out: its denoisers on a device, its scheduler, and where the rest lies."""

    profile: ModelProfile
    folder: Path
    adapter: PipelineAdapter
    denoisers: tuple[nn.Module, ...]
    """As the profile names them: of one class, in the order in which they share a run."""
    scheduler: Any
    device: torch.device

    @property
    def denoiser(self) -> nn.Module:
        """The first of them."""
        return self.denoisers[0]

    @property
    def guidances(self) -> tuple[float, ...]:
        """The guidance scale of each."""
        profile = self.profile
        return (profile.guidance, *((profile.experts.guidance,) if profile.experts else ()))

    @property
    def boundaries(self) -> tuple[float, ...]:
        """The timesteps below which each of them after the first takes over."""
        experts = self.profile.experts
        return (experts.boundary * self.scheduler.config.num_train_timesteps,) if experts else ()

    def sampler(self, steps: int) -> SamplerBinding:
        """Return the sampler that the profile deploys, at `steps` steps, with its exact schedule.

        A denoiser that has no step of so few takes over after the last one; no policy can hold that.
        """
        return self.shared(
            sampler_binding(
                self.scheduler,
                steps,
                self.profile.guidance,
                family=family_of(self.denoiser),
                guidance_rule=self.profile.guidance_rule,
                image_tokens=self.adapter.image_tokens(self.folder, self.profile),
            )
        )

    def shared(self, sampler: SamplerBinding) -> SamplerBinding:
        """Return a sampler with its schedule shared between the denoisers, and guided, as the profile deploys them."""
        names = list(self.profile.denoisers)[1:]
        parts = zip(names, first_steps(sampler.timesteps, self.boundaries), self.guidances[1:], strict=True)
        return msgspec.structs.replace(
            sampler,
            guidance=self.profile.guidance,
            experts=[
                Expert(denoiser=name, first_step=first, guidance=guidance) for name, first, guidance in parts
            ],
        )


def default_device() -> torch.device:
    """Return the first CUDA device, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name(device: torch.device) -> str:
    """Return what measurements depend on of a device, in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu, {torch.get_num_threads()} threads"


def supported(profile: ModelProfile) -> PipelineAdapter:
    """Return the adapter of a profile's pipeline; needs no weights.

    Raises:
        UnsupportedModel: the pipeline class is not known, or nothing says when its denoisers run.
    """
    if len(profile.denoisers) != (2 if profile.experts else 1):
        raise UnsupportedModel(
            f"{profile.name} has {_named(profile)}, and its profile says when {2 if profile.experts else 1} run",
            remedy="give the profile of two denoisers an [experts] table, and no other one",
        )
    return adapter_for(profile.pipeline_class)


def check_single(profile: ModelProfile, doing: str) -> None:
    """Refuse a model of several denoisers, where `doing` takes one. Raises UnsupportedModel."""
    if len(profile.denoisers) > 1:
        raise UnsupportedModel(
            f"{doing}: {profile.name} has {_named(profile)}, one is supported",
            remedy=f"run it in diffusers (budc run), or use --model {profile.try_instead}",
        )


def _named(profile: ModelProfile) -> str:
    return f"{len(profile.denoisers)} denoisers ({', '.join(profile.denoisers)})"


def load_model(profile: ModelProfile, folder: Path, device: torch.device) -> Model:
    """Load denoisers and scheduler from a local folder.

    Raises:
        UnsupportedModel: the folder holds another pipeline, denoiser class or size, or other experts.
        WeightsMissing, UnsafeWeights: see `denoiser_files`, and files that cannot be opened.
    """
    adapter = supported(profile)
    check_components(read_index(profile, folder), folder)
    check_architecture(profile, folder)
    denoiser_files(profile, folder)
    denoisers = []
    for name, class_name in profile.denoisers.items():
        with loading(folder / name):
            denoiser = getattr(diffusers, class_name).from_pretrained(
                folder,
                subfolder=name,
                dtype=getattr(torch, profile.dtype),
                use_safetensors=True,
                local_files_only=True,
            )
        denoisers.append(denoiser.eval().requires_grad_(False).to(device))
        gc.collect()
    with loading(folder / SCHEDULER_CONFIG):
        config = json.loads((folder / SCHEDULER_CONFIG).read_text(encoding="utf-8"))
        scheduler = getattr(diffusers, profile.scheduler).from_config(config, **profile.scheduler_config)
    return Model(profile, folder, adapter, tuple(denoisers), scheduler, device)


def as_measured(profile: ModelProfile, shape: Shape) -> ModelProfile:
    """Return the profile at the shape, dtype and text length that a policy's figures are for."""
    return msgspec.structs.replace(
        profile,
        height=shape.height,
        width=shape.width,
        frames=shape.frames,
        dtype=shape.dtype,
        text_tokens=shape.text_tokens or profile.text_tokens,
    )


def model_binding(profile: ModelProfile, folder: Path, digests: DigestCache | None = None) -> ModelBinding:
    """Return what ties a policy to these files: sha256 of each, tensor roots, architecture digests.

    Weights are read once for both; what `digests` (default: nothing) remembers is not read at all.

    Raises:
        UnsafeWeights: the runtimes would refuse the folder, such as for a pickle beside the weights.
    """
    digests = digests or DigestCache()
    names = denoiser_files(profile, folder)
    check_rivals(folder, names)
    files: dict[str, str] = {}
    denoisers = []
    for denoiser, class_name in profile.denoisers.items():
        weights = {
            name: resolve(folder, name)
            for name in names
            if name.startswith(f"{denoiser}/") and name.endswith(".safetensors")
        }
        found, root = digests.with_root(weights.values())
        files |= {name: found[path] for name, path in weights.items()}
        denoisers.append(
            DenoiserBinding(
                name=denoiser,
                class_name=class_name,
                tensor_root=root,
                architecture=architecture_digest(weights.values()),
            )
        )
    files |= file_digests(folder, set(names) - files.keys(), sha256=digests)
    return ModelBinding(
        profile=profile.name,
        family=profile.family,
        pipeline_class=profile.pipeline_class,
        denoisers=denoisers,
        variants=[Variant(name="original", files=dict(sorted(files.items())))],
        adapters=AdapterRule(rule="none"),
    )
