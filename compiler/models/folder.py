"""A model folder on disk: whether it is the profile's model, whether it is complete, and which files matter.

Only configurations and headers are read; no weights are loaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from budc.policies.profile import ModelProfile
from budc.runtimes.sampling.loading import loading
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
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsMissing(f"{folder}/model_index.json: cannot be read: {error}") from error
    class_name = index.get("_class_name") if isinstance(index, dict) else None
    if class_name != profile.pipeline_class:
        raise UnsupportedModel(
            f"{folder}/model_index.json: is a {class_name}, but {profile.name} is a {profile.pipeline_class}",
            remedy="give the folder of the right model, or another --model",
        )
    for name, expected in profile.denoisers.items():
        library_class = index.get(name) or [None, None]
        if library_class[1] != expected:
            raise UnsupportedModel(
                f"{folder}/model_index.json: {name} is a {library_class[1]}, "
                f"but {profile.name} has a {expected}"
            )
    ratio = profile.experts.boundary if profile.experts else None
    if index.get("boundary_ratio") != ratio:
        raise UnsupportedModel(
            f"{folder}/model_index.json: boundary_ratio is {index.get('boundary_ratio')}, "
            f"but {profile.name} has {ratio}",
            remedy="give the folder of the right model, or another --model",
        )
    return dict(index)


def check_architecture(profile: ModelProfile, folder: Path) -> None:
    """Refuse a denoiser whose config.json contradicts the profile, such as another size of the same class.

    Raises:
        UnsupportedModel: a setting has another value; the error names the file and both values.
        WeightsMissing: the configuration cannot be read.
    """
    for name, settings in profile.architecture.items():
        path = folder / name / "config.json"
        with loading(path):
            config = json.loads(path.read_text(encoding="utf-8"))
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
    components = [name for name, value in index.items() if isinstance(value, list) and value[0] is not None]
    for component in (folder / name for name in components):
        if not any(component.glob("*.json")):
            raise WeightsMissing(f"{component}: no configuration there", remedy="complete the download")
        weights, config = set(component.glob("*.safetensors")), component / "config.json"
        if weights and not config.is_file():
            raise WeightsMissing(f"{config}: no such file", remedy="complete the download")
        if not weights and config.is_file():
            raise WeightsMissing(f"{component}: no safetensors file", remedy="complete the download")
        for path in component.glob("*config.json"):
            with loading(path):
                if not isinstance(json.loads(path.read_text(encoding="utf-8")), dict):
                    raise ValueError("is not a JSON object")
        for index_file in component.glob("*.safetensors.index.json"):
            with loading(index_file):
                weight_map = json.loads(index_file.read_text(encoding="utf-8"))["weight_map"]
                listed = {component / name for name in weight_map.values()}
            if missing := sorted(listed - weights):
                raise WeightsMissing(f"{missing[0]}: no such file", remedy="complete the download")
        for path in sorted(weights):
            with open_weights(path) as file:
                read_header(file, path)


def component_digests(
    profile: ModelProfile, folder: Path, sha256: FileDigests = sha256_files
) -> dict[str, str]:
    """Return the sha256 of every file of the other components: a rollout or a metric depends on them."""
    names = [
        f"{component}/{path.name}"
        for component, value in sorted(read_index(profile, folder).items())
        if isinstance(value, list) and value[0] is not None and component not in profile.denoisers
        for path in sorted((folder / component).iterdir())
        if path.is_file()
    ]
    digests = sha256(folder / name for name in names)
    return {name: digests[folder / name] for name in names}
