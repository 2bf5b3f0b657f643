"""Pass 1, load: a profile and a folder become a denoiser, a scheduler and their digests."""

from __future__ import annotations

import gc
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import nn

from budc.compiler.loading import loading
from budc.compiler.pipelines import Adapter, adapter_for
from budc.policies.profile import ModelProfile
from budc.runtimes.families import family_of
from budc.runtimes.schedulers import sampler_binding
from budc.schema.digest_cache import DigestCache
from budc.schema.digests import architecture_digest, check_files, file_digests, sha256_file, tensor_root
from budc.schema.errors import UnsafeWeights, UnsupportedModel, WeightsMissing
from budc.schema.policy import AdapterRule, Denoiser, ModelBinding, SamplerBinding, Variant
from budc.schema.tensors import open_weights, read_header

SCHEDULER_CONFIG = "scheduler/scheduler_config.json"


@dataclass(frozen=True)
class Model:
    """A model ready to roll out: its denoiser on a device, its scheduler, and where the rest lies."""

    profile: ModelProfile
    folder: Path
    adapter: Adapter
    denoiser: nn.Module
    scheduler: Any
    device: torch.device

    def sampler(self, steps: int) -> SamplerBinding:
        """Return the sampler that the profile deploys, at `steps` steps, with its exact schedule."""
        return sampler_binding(
            self.scheduler,
            steps,
            self.profile.guidance,
            family=family_of(self.denoiser),
            guidance_rule=self.profile.guidance_rule,
        )


def default_device() -> torch.device:
    """Return the first CUDA device, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _index(profile: ModelProfile, folder: Path) -> dict[str, Any]:
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsMissing(f"{folder}/model_index.json: cannot be read: {error}") from error
    found = index.get("_class_name") if isinstance(index, dict) else None
    if found != profile.pipeline_class:
        raise UnsupportedModel(
            f"{folder}/model_index.json: is a {found}, but {profile.name} is a {profile.pipeline_class}",
            remedy="give the folder of the right model, or another --model",
        )
    for name, expected in profile.denoisers.items():
        library_class = index.get(name) or [None, None]
        if library_class[1] != expected:
            raise UnsupportedModel(
                f"{folder}/model_index.json: {name} is a {library_class[1]}, "
                f"but {profile.name} has a {expected}"
            )
    return dict(index)


def denoiser_files(profile: ModelProfile, folder: Path) -> tuple[str, ...]:
    """Return the files that a policy is bound to, relative to the folder: weights, configs, scheduler config.

    Raises:
        WeightsMissing: a denoiser has no safetensors.
        UnsafeWeights: it has pickled weights only.
    """
    names = [SCHEDULER_CONFIG]
    for denoiser in profile.denoisers:
        part = folder / denoiser
        weights = sorted(path.name for path in part.glob("*.safetensors"))
        pickles = sorted(
            path.name for suffix in ("bin", "pt", "pth", "ckpt", "pkl") for path in part.glob(f"*.{suffix}")
        )
        if not weights and pickles:
            raise UnsafeWeights(f"{part / pickles[0]}: pickled weights are never loaded")
        if not weights:
            raise WeightsMissing(
                f"{part}: no safetensors file", remedy="complete the download, or give another --weights"
            )
        names += [f"{denoiser}/{name}" for name in weights]
        names += [f"{denoiser}/{path.name}" for path in part.glob("*.json")]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise WeightsMissing(f"{folder / missing[0]}: no such file")
    return tuple(sorted(names))


def load_model(profile: ModelProfile, folder: Path, device: torch.device) -> Model:
    """Load denoiser and scheduler from a local folder.

    Raises:
        UnsupportedModel: the folder holds another pipeline or denoiser class.
        WeightsMissing, UnsafeWeights: see `denoiser_files`, and files that cannot be opened.
    """
    check_components(_index(profile, folder), folder)
    adapter = adapter_for(profile.pipeline_class)
    denoiser_files(profile, folder)
    ((name, class_name),) = profile.denoisers.items()
    with loading(folder / name):
        denoiser = getattr(diffusers, class_name).from_pretrained(
            folder,
            subfolder=name,
            dtype=getattr(torch, profile.dtype),
            use_safetensors=True,
            local_files_only=True,
        )
    with loading(folder / SCHEDULER_CONFIG):
        config = json.loads((folder / SCHEDULER_CONFIG).read_text(encoding="utf-8"))
        scheduler = getattr(diffusers, profile.scheduler).from_config(config, **profile.scheduler_config)
    denoiser.eval().requires_grad_(False)
    gc.collect()
    return Model(profile, folder, adapter, denoiser.to(device), scheduler, device)


def check_components(index: Mapping[str, Any], folder: Path) -> None:
    """Refuse a model that is not whole, before anything is computed with it: headers are read, no weights.

    Raises:
        WeightsMissing: a component, its configuration, its weights or a shard is not there.
        UnsafeWeights: a safetensors file is malformed or cut short.
    """
    components = [name for name, value in index.items() if isinstance(value, list) and value[0] is not None]
    for part in (folder / name for name in components):
        if not any(part.glob("*.json")):
            raise WeightsMissing(f"{part}: no configuration there", remedy="complete the download")
        weights = set(part.glob("*.safetensors"))
        if weights != set() and not (part / "config.json").is_file():
            raise WeightsMissing(f"{part / 'config.json'}: no such file", remedy="complete the download")
        if not weights and (part / "config.json").is_file():
            raise WeightsMissing(f"{part}: no safetensors file", remedy="complete the download")
        for path in part.glob("*config.json"):
            with loading(path):
                if not isinstance(json.loads(path.read_text(encoding="utf-8")), dict):
                    raise ValueError("is not a JSON object")
        for shards in part.glob("*.safetensors.index.json"):
            with loading(shards):
                listed = {part / name for name in json.loads(shards.read_text())["weight_map"].values()}
            if missing := sorted(listed - weights):
                raise WeightsMissing(f"{missing[0]}: no such file", remedy="complete the download")
        for path in sorted(weights):
            with open_weights(path) as file:
                read_header(file, path)


def component_digests(profile: ModelProfile, folder: Path) -> dict[str, str]:
    """Return sha256 of every file outside of the denoisers that a rollout or a metric depends on."""
    names = [
        f"{part}/{path.name}"
        for part, value in sorted(_index(profile, folder).items())
        if isinstance(value, list) and value[0] is not None and part not in profile.denoisers
        for path in sorted((folder / part).iterdir())
        if path.is_file()
    ]
    return {name: sha256_file(folder / name) for name in names}


def model_binding(profile: ModelProfile, folder: Path) -> ModelBinding:
    """Return what ties a policy to these files: sha256 of each, tensor roots, architecture digests.

    Raises:
        UnsafeWeights: the runtimes would refuse the folder, such as for a pickle beside the weights.
    """
    names = denoiser_files(profile, folder)
    digests = DigestCache()
    original = Variant(name="original", files=file_digests(folder, names, sha256=digests))
    check_files(folder, original, sha256=digests)
    denoisers = []
    for denoiser, class_name in profile.denoisers.items():
        weights = [
            folder / name
            for name in names
            if name.startswith(f"{denoiser}/") and name.endswith(".safetensors")
        ]
        denoisers.append(
            Denoiser(
                name=denoiser,
                class_name=class_name,
                tensor_root=tensor_root(weights),
                architecture=architecture_digest(weights),
            )
        )
    return ModelBinding(
        profile=profile.name,
        family=profile.family,
        pipeline_class=profile.pipeline_class,
        denoisers=denoisers,
        variants=[original],
        adapters=AdapterRule(rule="none"),
    )
