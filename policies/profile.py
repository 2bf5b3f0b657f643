"""Model profiles: one TOML file a model, with its classes, sampler settings, prompts and origin.

    profile = load_profile("wan2.1-nano")
    folder = find_weights(profile, None)

Adding a model to the package means adding `policies/<name>.toml`; `budc.policies.model_choice` reads profiles of users.
"""

from __future__ import annotations

import difflib
import os
from importlib.resources import files
from pathlib import Path
from typing import Literal

import msgspec

from budc.policies.prompt_files import read_prompt_file
from budc.schema.errors import BudcError, UsageError, WeightsMissing
from budc.schema.files import read_limited
from budc.schema.foreign_error import reason_of

_HERE = Path(str(files("budc.policies")))


class Prompts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Prompt files, relative to the profiles, and how many prompts of each are used."""

    calibration: str
    """Empty, as `held_out` is, where samples are made from images: the package holds none."""
    calibration_size: int
    held_out: str
    held_out_size: int
    negative: str = ""


class AnnealingSettings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename="camel"
):
    """Settings of the reference search that differ between families (arXiv 2606.13496)."""

    temperature_start: float
    temperature_end: float
    protected_fraction: float


class FusedAdapter(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An adapter (LoRA) that is fused into the denoiser's weights before anything is compiled."""

    repository: str
    file: str
    scale: float


class Experts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A second denoiser takes over where the timestep falls below `boundary` of the training timesteps."""

    boundary: float
    guidance: float
    """Guidance scale of the second denoiser."""


class ModelProfile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A model as it is deployed: classes, sampler settings, shape, prompts, origin of the weights."""

    name: str
    title: str
    family: str
    pipeline_class: str
    denoisers: dict[str, str]
    """Denoiser folder -> transformer class."""
    scheduler: str
    scheduler_config: dict[str, bool | int | float | str] = {}
    """Settings in which the deployment differs from the checkpoint's scheduler configuration."""
    steps: int
    guidance: float
    guidance_rule: Literal["classifier-free", "distilled", "none"]
    branches: tuple[str, ...]
    height: int
    width: int
    frames: int
    text_tokens: int | None = None
    """Number of tokens that the pipeline pads the text to; None if it does not pad."""
    dtype: Literal["float32", "bfloat16", "float16"]
    repository: str = ""
    revision: str = "main"
    licence: str
    size_gb: float
    quantization: str = ""
    """How denoisers are quantised once they are loaded, see `budc.policies.quantization`; empty for not at all."""
    embedded: str = ""
    """Folder of weights inside the package, relative to the profiles; empty for models of a hub."""
    weights: str = ""
    """Folder of the weights, for a profile of the user's own; relative to its file."""
    try_instead: str = "wan2.1-nano"
    parameters: float = 0.0
    """Published number of parameters of one denoiser, in billions; 0 for embedded models."""
    architecture: dict[str, dict[str, bool | int | float | str]] = {}
    """Denoiser -> settings that its config.json must have; size and cost are computed from them."""
    fused: FusedAdapter | None = None
    experts: Experts | None = None
    prompts: Prompts
    search: AnnealingSettings


def profile_names() -> tuple[str, ...]:
    """Return the names of all shipped profiles, sorted."""
    return tuple(sorted(path.stem for path in _HERE.glob("*.toml")))


def families() -> tuple[str, ...]:
    """Return the model families of all shipped profiles, sorted."""
    return tuple(sorted({load_profile(name).family for name in profile_names()}))


def load_profile(name: str, door: str = "--model") -> ModelProfile:
    """Read a shipped profile; messages call what it was named by `door`.

    Raises:
        UsageError: no profile of that name; the message suggests the nearest.
    """
    path = _HERE / f"{name}.toml"
    if name not in profile_names():
        near = difflib.get_close_matches(name, profile_names(), n=1)
        hint = f"use {near[0]}" if near else f"known models: {', '.join(profile_names())}"
        raise UsageError(
            f"{door}: no profile named {name[:100]!r}, and no TOML file or folder of that name", remedy=hint
        )
    try:
        return msgspec.toml.decode(path.read_bytes(), type=ModelProfile)
    except msgspec.ValidationError as error:
        raise UsageError(f"{path.name}: {error}") from error


def embedded_folder(profile: ModelProfile) -> Path:
    """Return the folder of an embedded model's weights."""
    return _HERE / profile.embedded


def prompt_path(name: str) -> Path:
    """Return the path of a shipped prompt file, or of one of an own profile's, which is absolute."""
    return _HERE / name


def read_prompts(name: str | Path, limit: int | None = None) -> tuple[str, ...]:
    """Read the texts of a prompt file, by the name of a shipped one or by path. Raises UsageError."""
    path = prompt_path(name) if isinstance(name, str) else name
    return tuple(prompt.text for prompt in read_prompt_file(path, limit))


def _hub_snapshot(profile: ModelProfile) -> Path:
    # The same rules as the hub client's, which is not imported to read a profile.
    caches = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"))
    home = Path(os.environ.get("HF_HOME", caches / "huggingface"))
    cache = Path(os.environ.get("HF_HUB_CACHE", home / "hub")).expanduser()
    repository = cache / ("models--" + profile.repository.replace("/", "--"))
    reference = repository / "refs" / profile.revision
    try:
        commit = read_limited(reference, 1024).decode("utf-8").strip()
    except (BudcError, UnicodeDecodeError):
        commit = profile.revision
    return repository / "snapshots" / commit


def find_weights(profile: ModelProfile, folder: Path | None, *, download: bool = False) -> Path:
    """Return the folder that holds the model: `folder` if given, else the embedded one or that of the hub cache.

    Nothing is fetched unless `download` is true.

    Raises:
        WeightsMissing: there is no model in it; the message says where it was searched and what to fetch.
    """
    if folder is None and profile.embedded:
        folder = embedded_folder(profile)
    if folder is None and profile.weights:
        folder = Path(profile.weights)
    if folder is None and not profile.repository:
        raise WeightsMissing(
            f"{profile.name}: neither the profile nor --weights names its folder", remedy="--weights DIR"
        )
    if folder is None and download and profile.repository and profile.fused is None:
        # Also if there is a snapshot: an interrupted download is completed, a complete one is only looked up.
        return _download(profile)
    searched = folder if folder is not None else _hub_snapshot(profile)
    if profile.fused is not None and folder is None:
        raise _unfused(profile, profile.fused, searched)
    if os.path.isfile(searched / "model_index.json"):
        return searched
    own = "named by its profile" if profile.weights else "part of the package"
    origin = f"{profile.repository}, {profile.size_gb:g} GB" if profile.repository else own
    raise WeightsMissing(
        f"{profile.name}: no weights in {searched} (model_index.json is missing; {origin})",
        remedy=f"--weights DIR, or --download to fetch {profile.repository}, or --model {profile.try_instead}"
        if profile.repository
        else "--weights DIR, a folder as save_pretrained writes it",
    )


def _unfused(profile: ModelProfile, fused: FusedAdapter, searched: Path) -> WeightsMissing:
    return WeightsMissing(
        f"{profile.name}: no folder given ({profile.repository} is looked for in {searched}; {profile.size_gb:g} GB, "
        f"and {fused.repository}/{fused.file} must be fused into it at scale {fused.scale:g})",
        remedy=f"fuse it (docs/models.md) and pass --weights DIR, or --model {profile.try_instead}",
    )


def _download(profile: ModelProfile) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(
            snapshot_download(
                profile.repository,
                revision=profile.revision,
                # Weights of components only: some repositories hold the same ones again in one file at the top.
                allow_patterns=["*.json", "*/*.safetensors", "*.txt", "*.model"],
            )
        )
    except (HfHubHTTPError, OSError) as error:
        raise WeightsMissing(
            f"{profile.repository}: download failed: {reason_of(error)}", remedy="--weights DIR"
        ) from error
