"""Binding: what ties a policy to the files of a model folder, and to how it is quantised once it is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace
from torch import nn

from budc.compiler.models.folder import denoiser_files
from budc.policies.profile import ModelProfile
from budc.runtimes.sampling.quantized import values_root
from budc.schema.digest_cache import DigestCache
from budc.schema.digests import architecture_digest, check_rivals, file_digests
from budc.schema.folder import resolve
from budc.schema.model_config import listed_settings, read_config
from budc.schema.model_files import CONFIG
from budc.schema.policy import AdapterRule, DenoiserBinding, ModelBinding, Quantization, Variant


def model_binding(profile: ModelProfile, folder: Path, digests: DigestCache | None = None) -> ModelBinding:
    """Return the sha256 of every file that a policy depends on, with tensor roots, architecture digests and settings.

    Weights are read once for both. A file whose digest is in `digests` is not read at all.

    Raises:
        WeightsMissing: a denoiser has no safetensors.
        UnsafeWeights: the runtimes would refuse the folder, for example for a pickle beside the weights.
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
        sha256, root = digests.with_root(weights.values())
        config = f"{denoiser}/{CONFIG}"
        files |= {name: sha256[path] for name, path in weights.items()}
        denoisers.append(
            DenoiserBinding(
                name=denoiser,
                class_name=class_name,
                tensor_root=root,
                architecture=architecture_digest(weights.values()),
                config=listed_settings(read_config(folder / config, config)) if config in names else None,
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


def with_quantization(binding: ModelBinding, kind: str, denoisers: Sequence[nn.Module]) -> ModelBinding:
    """Return the binding of a model that was loaded quantised by `kind`, with the values that it computes with."""
    quantized = [
        replace(item, quantization=Quantization(kind=kind, values=values_root(network)))
        for item, network in zip(binding.denoisers, denoisers, strict=True)
    ]
    return replace(binding, denoisers=quantized)
