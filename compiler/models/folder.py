"""A model folder on disk: whether it is the profile's model, whether it is complete, and which files matter.

Only configurations and headers are read; no weights are loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from budc.policies.folder_profile import read_object
from budc.policies.profile import ModelProfile
from budc.schema.digests import FileDigests
from budc.schema.errors import UnsafeWeights, UnsupportedModel, WeightsMissing
from budc.schema.hashing import sha256_files
from budc.schema.tensors import open_weights, read_header

SCHEDULER_CONFIG = "scheduler/scheduler_config.json"

_PICKLE_SUFFIXES = ("bin", "pt", "pth", "ckpt", "pkl")


def read_index(profile: ModelProfile, folder: Path) -> dict[str, Any]:
    """Read model_index.json, which must have the profile's pipeline class, denoiser classes and boundary of experts.

    Raises:
        WeightsMissing: it cannot be read.
        UnsupportedModel: it has others.
    """
    index = read_object(folder / "model_index.json")
    class_name = index.get("_class_name")
    if class_name != profile.pipeline_class:
        raise UnsupportedModel(
            f"{folder}/model_index.json: is a {class_name}, but {profile.name} is a {profile.pipeline_class}",
            remedy="give the folder of the right model, or another --model",
        )
    for name, expected in profile.denoisers.items():
        entry = index.get(name)
        found = entry[-1] if isinstance(entry, list) and entry else None
        if found != expected:
            raise UnsupportedModel(
                f"{folder}/model_index.json: {name} is a {found}, but {profile.name} has a {expected}"
            )
    if index.get("expand_timesteps"):
        raise UnsupportedModel(
            f"{folder}/model_index.json: expand_timesteps, a timestep for each token, is not supported"
        )
    ratio = profile.experts.boundary if profile.experts else None
    if index.get("boundary_ratio") != ratio:
        raise UnsupportedModel(
            f"{folder}/model_index.json: boundary_ratio is {index.get('boundary_ratio')}, "
            f"but {profile.name} has {ratio}",
            remedy="give the folder of the right model, or another --model",
        )
    return index


def check_architecture(profile: ModelProfile, folder: Path) -> None:
    """Refuse a denoiser whose config.json contradicts the profile, such as another size of the same class.

    Raises:
        UnsupportedModel: a setting has another value; the error names the file and both values.
        WeightsMissing: the configuration cannot be read.
    """
    for name, settings in profile.architecture.items():
        path = folder / name / "config.json"
        config = read_object(path)
        for setting, value in settings.items():
            if config.get(setting) != value:
                raise UnsupportedModel(
                    f"{path}: {setting} is {config.get(setting)!r}, but {profile.name} has {value!r}",
                    remedy="give the folder of the right model, or another --model",
                )


def denoiser_files(profile: ModelProfile, folder: Path) -> tuple[str, ...]:
    """Return the files that a policy is bound to, relative to the folder: weights and configurations.

    Raises:
        WeightsMissing: a denoiser has no safetensors.
        UnsafeWeights: it has pickled weights only.
    """
    names = [SCHEDULER_CONFIG]
    for denoiser in profile.denoisers:
        subfolder = folder / denoiser
        weights = sorted(path.name for path in subfolder.glob("*.safetensors"))
        pickles = sorted(path for suffix in _PICKLE_SUFFIXES for path in subfolder.glob(f"*.{suffix}"))
        if not weights and pickles:
            raise UnsafeWeights(f"{pickles[0]}: pickled weights are never loaded")
        if not weights:
            raise WeightsMissing(
                f"{subfolder}: no safetensors file", remedy="complete the download, or give another --weights"
            )
        names += [f"{denoiser}/{name}" for name in weights]
        names += [f"{denoiser}/{path.name}" for path in subfolder.glob("*.json")]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise WeightsMissing(f"{folder / missing[0]}: no such file")
    return tuple(sorted(names))


def check_components(index: Mapping[str, Any], folder: Path) -> None:
    """Refuse an incomplete model before anything is computed with it; reads headers, no weights.

    Raises:
        WeightsMissing: a component, its configuration, its weights or a shard is missing.
        UnsafeWeights: a safetensors file is malformed or cut short.
    """
    components = [name for name, value in index.items() if isinstance(value, list) and any(value)]
    for component in (folder / name for name in components):
        if not any(component.glob("*.json")):
            raise WeightsMissing(f"{component}: no configuration there", remedy="complete the download")
        weights, config = set(component.glob("*.safetensors")), component / "config.json"
        if weights and not config.is_file():
            raise WeightsMissing(f"{config}: no such file", remedy="complete the download")
        if not weights and config.is_file():
            raise WeightsMissing(f"{component}: no safetensors file", remedy="complete the download")
        for path in component.glob("*config.json"):
            read_object(path)
        for index_file in component.glob("*.safetensors.index.json"):
            listed = _shards(index_file)
            if missing := sorted(listed - weights):
                raise WeightsMissing(f"{missing[0]}: no such file", remedy="complete the download")
        for path in sorted(weights):
            with open_weights(path) as file:
                read_header(file, path)


def _shards(index_file: Path) -> set[Path]:
    """Return the files that a shard index lists."""
    weight_map = read_object(index_file).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise WeightsMissing(f"{index_file}: lists no weights", remedy="complete the download")
    return {index_file.parent / name for name in weight_map.values()}


def component_digests(
    profile: ModelProfile, folder: Path, sha256: FileDigests = sha256_files
) -> dict[str, str]:
    """Return the sha256 of every file of the other components: a rollout or a metric depends on them."""
    names = [
        f"{component}/{path.name}"
        for component, value in sorted(read_index(profile, folder).items())
        if isinstance(value, list) and any(value) and component not in profile.denoisers
        for path in sorted((folder / component).iterdir())
        if path.is_file()
    ]
    digests = sha256(folder / name for name in names)
    return {name: digests[folder / name] for name in names}
