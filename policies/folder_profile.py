"""A profile for a model folder of a known family, from its own configurations.

    made = profile_from_folder(Path("/models/my-wan"))
    print(made.profile.family, made.base)

Classes, experts and architecture are the folder's. How it is deployed (steps, guidance, size, prompts) no folder says:
that is taken from the shipped profile of the same architecture, or of the same pipeline where none has it.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from budc.policies.conditioning_images import check_first_frame_alone
from budc.policies.profile import Experts, ModelProfile, embedded_folder, load_profile, profile_names
from budc.policies.profile_rules import BRANCHES
from budc.schema import canonical
from budc.schema.errors import BudcError, UnsafeWeights, UnsupportedModel, UsageError, WeightsMissing
from budc.schema.files import read_limited
from budc.schema.model_config import first_difference, settings_of
from budc.schema.tensors import open_weights, read_header

INDEX = "model_index.json"
_DENOISERS = ("transformer", "transformer_2")
_UNNAMED = "my-model"


class FolderProfile(NamedTuple):
    """A profile made for a folder."""

    profile: ModelProfile
    base: str
    """The shipped profile that says how it is deployed."""
    same_architecture: bool
    """Whether that profile is of the same architecture, or merely of the same pipeline."""
    others: tuple[str, ...]
    """Further shipped profiles that would do as well, such as a distilled edition."""


def profile_from_folder(folder: Path, like: str | None = None) -> FolderProfile:
    """Return a profile for the model in `folder`; `like` names the shipped profile to deploy it as.

    Raises:
        WeightsMissing: it is no model folder, or a configuration in it cannot be read.
        UnsupportedModel: its pipeline or its transformer is of no known family.
        UsageError: `like` is no profile of this pipeline.
    """
    index = read_object(folder / INDEX)
    denoisers = _denoisers(folder, index)
    configs = {name: read_object(folder / name / "config.json") for name in denoisers}
    for name, config in configs.items():
        check_first_frame_alone(config, folder / name / "config.json")
    candidates = _candidates(folder, index, denoisers)
    alike = [profile for profile in candidates if _same_architecture(profile, configs)]
    base = _base(candidates, alike, like)
    guided = configs["transformer"].get("guidance_embeds", True) or base.guidance_rule != "distilled"
    rule = base.guidance_rule if guided else "none"
    experts = base.experts and Experts(boundary=_boundary(folder, index), guidance=base.experts.guidance)
    name = _name(folder)
    profile = msgspec.structs.replace(
        base,
        name=name,
        title=f"{name}, a {index['_class_name']} of the family {base.family}",
        scheduler=_component(folder, index, "scheduler"),
        scheduler_config={},
        guidance=base.guidance if guided else 0.0,
        guidance_rule=rule,
        branches=BRANCHES[rule],
        weights=str(folder),
        repository="",
        revision="main",
        licence="not stated",
        size_gb=_rounded(sum(path.stat().st_size for path in folder.glob("*/*.safetensors")) / 1e9),
        embedded="",
        parameters=_parameters(folder / "transformer"),
        architecture=_architecture(candidates, configs),
        fused=None,
        experts=experts,
    )
    others = tuple(other.name for other in alike if other.name != base.name)
    return FolderProfile(profile, base.name, base in alike, others)


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises WeightsMissing."""
    if not os.path.lexists(path):
        raise WeightsMissing(f"{path}: no such file", remedy="complete the model folder, or give another")
    try:
        value = canonical.parse(read_limited(path, canonical.MAX_BYTES), what=path.name)
        if not isinstance(value, dict):
            raise UsageError("is not a JSON object")
    except BudcError as error:
        raise WeightsMissing(f"{path}: cannot be read: {error}", remedy="give a model folder") from error
    return value


def _component(folder: Path, index: Mapping[str, Any], name: str) -> str:
    """Return the class of a component."""
    entry = index.get(name)
    if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[1], str):
        raise WeightsMissing(
            f"{folder / INDEX} names no {name}", remedy="save the whole pipeline with save_pretrained"
        )
    return entry[1]


def _boundary(folder: Path, index: Mapping[str, Any]) -> float:
    """Return the share of the training timesteps below which the second denoiser runs."""
    ratio = index.get("boundary_ratio")
    if not isinstance(ratio, float) or not 0 < ratio < 1:
        raise UnsupportedModel(
            f"{folder / INDEX}: boundary_ratio is {ratio!r}, which does not say when the second denoiser takes over",
            remedy="set it to a number between 0 and 1, as the model's publisher does",
        )
    return ratio


def _denoisers(folder: Path, index: Mapping[str, Any]) -> dict[str, str]:
    there = [name for name in _DENOISERS if isinstance(index.get(name), list) and any(index[name])]
    known = sorted({kind for profile in _shipped() for kind in profile.denoisers.values()})
    if not there:
        raise UnsupportedModel(
            f"{folder}: a {index.get('_class_name')} without a transformer",
            remedy="budc.compile_policy compiles for any network, see docs/tutorials/network.md",
        )
    denoisers = {name: _component(folder, index, name) for name in there}
    for name, kind in denoisers.items():
        if kind not in known:
            raise UnsupportedModel(
                f"{folder}: its {name} is a {kind}, of no family that budc knows ({', '.join(known)})",
                remedy="docs/models.md says how a family is added; budc.compile_policy compiles for any network",
            )
    return denoisers


def _candidates(
    folder: Path, index: Mapping[str, Any], denoisers: Mapping[str, str]
) -> tuple[ModelProfile, ...]:
    """Return the shipped profiles of the folder's pipeline, real models first."""
    pipeline = index.get("_class_name")
    fitting = [p for p in _shipped() if p.pipeline_class == pipeline and p.denoisers == denoisers]
    if not fitting or index.get("expand_timesteps"):
        known = sorted({profile.pipeline_class for profile in _shipped()})
        what = f"a {pipeline} with {', '.join(denoisers)}"
        raise UnsupportedModel(
            f"{folder}: {what} and a timestep for each token is not supported"
            if fitting
            else f"{folder}: {what} is not supported, only {', '.join(known)}",
            remedy="docs/models.md says which pipelines there are, and how one is added",
        )
    return tuple(sorted(fitting, key=lambda profile: (bool(profile.embedded), profile.fused is not None)))


def _shipped() -> tuple[ModelProfile, ...]:
    return tuple(map(load_profile, profile_names()))


def _same_architecture(profile: ModelProfile, configs: Mapping[str, Mapping[str, Any]]) -> bool:
    for name, config in configs.items():
        if profile.embedded:
            own = settings_of(read_object(embedded_folder(profile) / name / "config.json"))
            if first_difference(own, settings_of(config), dict) is not None:
                return False
        elif any(config.get(key) != value for key, value in profile.architecture.get(name, {}).items()):
            return False
    return True


def _base(candidates: tuple[ModelProfile, ...], alike: list[ModelProfile], like: str | None) -> ModelProfile:
    if like is None:
        return (alike or candidates)[0]
    base = load_profile(like, "--like")
    if base not in candidates:
        names = ", ".join(profile.name for profile in candidates)
        raise UsageError(f"--like: {like} is of another pipeline", remedy=f"use one of {names}")
    return base


def _architecture(
    candidates: tuple[ModelProfile, ...], configs: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return the settings by which profiles of this pipeline tell sizes apart, as they are in the folder."""
    keys = next((profile.architecture for profile in candidates if profile.architecture), {})
    return {
        name: {key: config[key] for key in keys.get(name, {}) if config.get(key) is not None}
        for name, config in configs.items()
    }


def _parameters(component: Path) -> float:
    """Return the number of parameters in billions; 0 where there are no weights that can be read."""
    count = 0
    try:
        for path in component.glob("*.safetensors"):
            with open_weights(path) as file:
                count += sum(math.prod(entry.shape) for entry in read_header(file, path))
    except (WeightsMissing, UnsafeWeights):
        return 0.0
    return _rounded(count / 1e9)


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


def _name(folder: Path) -> str:
    """Return a name for the folder's model that no shipped one has."""
    path = Path(os.path.realpath(folder))
    if path.parent.name == "snapshots":
        path = Path(path.parents[1].name.rpartition("--")[2])
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.name).lstrip(".-")[:100] or _UNNAMED
    return f"my-{name}" if name in profile_names() else name
