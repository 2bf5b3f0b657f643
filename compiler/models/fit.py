"""Whether a profile is true of a model folder: seen in configurations alone, before a framework is imported."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from budc.compiler.models.folder import check_architecture, read_index
from budc.policies.conditioning_images import check_first_frame_alone
from budc.policies.folder_profile import read_object
from budc.policies.profile import ModelProfile
from budc.schema.errors import UnsupportedModel, WeightsMissing


class Grid(NamedTuple):
    """Sizes come in multiples of `cell` pixels, frames as one and a multiple of `interval`; that is 0 for pictures."""

    cell: int
    interval: int


def check_fit(profile: ModelProfile, folder: Path) -> None:
    """Refuse a profile that contradicts the folder: another pipeline or size, a shape that its VAE cannot make.

    Raises:
        UnsupportedModel: a setting contradicts a configuration; the message names both.
        WeightsMissing: a configuration or the scheduler is not there.
    """
    index = read_index(profile, folder)
    if not isinstance(index.get("scheduler"), list) or not any(index["scheduler"]):
        raise WeightsMissing(
            f"{folder}/model_index.json names no scheduler",
            remedy="save the whole pipeline with save_pretrained",
        )
    check_architecture(profile, folder)
    path = folder / next(iter(profile.denoisers)) / "config.json"
    config = read_object(path)
    check_first_frame_alone(config, path)
    _check_guidance(profile, folder, config)
    _check_shape(profile, folder_grid(profile, folder), folder / "vae" / "config.json")


def folder_grid(profile: ModelProfile, folder: Path) -> Grid:
    """Return the sizes that the model of a folder can make. Raises WeightsMissing: a configuration is not there."""
    vae, transformer = (
        read_object(folder / part / "config.json") for part in ("vae", next(iter(profile.denoisers)))
    )
    return grid(vae, transformer)


def grid(vae: Mapping[str, Any], transformer: Mapping[str, Any]) -> Grid:
    """Return the sizes that a VAE and the cells of a transformer can make, by their configurations."""
    patch = transformer.get("patch_size", 1)
    if isinstance(patch, list):
        # Of a video transformer: frames, rows, columns. Packed latents have cells of 2 × 2 and name none.
        patch = patch[-1] if len(patch) == 3 else 2
    cell = patch if isinstance(patch, int) and patch > 1 else 2
    match vae.get("_class_name"):
        case "AutoencoderKLWan":
            return Grid(
                cell * _factor(vae, "scale_factor_spatial", 8), _factor(vae, "scale_factor_temporal", 4)
            )
        case "AutoencoderKLHunyuanVideo":
            return Grid(
                cell * _factor(vae, "spatial_compression_ratio", 8),
                _factor(vae, "temporal_compression_ratio", 4),
            )
        case "AutoencoderKLQwenImage":
            return Grid(cell * 2 ** _length(vae, "temperal_downsample", 3), 0)
        case _:
            return Grid(cell * 2 ** max(0, _length(vae, "block_out_channels", 1) - 1), 0)


def _factor(config: Mapping[str, Any], name: str, default: int) -> int:
    """Return a compression ratio; its default where it is left out, or is none."""
    value = config.get(name)
    return value if isinstance(value, int) and value > 0 else default


def _length(config: Mapping[str, Any], name: str, default: int) -> int:
    """Return the length of a list; its default where it is left out, or is none."""
    value = config.get(name)
    return len(value) if isinstance(value, list) and len(value) < 16 else default


def _check_guidance(profile: ModelProfile, folder: Path, config: Mapping[str, Any]) -> None:
    embeds = config.get("guidance_embeds")
    if profile.guidance_rule == "distilled" and embeds is False:
        raise UnsupportedModel(
            f'{profile.name}: guidance_rule is "distilled", but {folder}/transformer/config.json says '
            "guidance_embeds false: the network takes no guidance",
            remedy='guidance_rule = "none" with guidance = 0',
        )
    if profile.guidance_rule != "distilled" and embeds is True:
        raise UnsupportedModel(
            f'{profile.name}: guidance_rule is "{profile.guidance_rule}", but {folder}/transformer/config.json says '
            "guidance_embeds true: the network is distilled and takes guidance as an input",
            remedy='guidance_rule = "distilled" with branches = ["cond"]',
        )


def _check_shape(profile: ModelProfile, sizes: Grid, vae: Path) -> None:
    for field in ("height", "width"):
        value = getattr(profile, field)
        if value % sizes.cell:
            near = max(1, round(value / sizes.cell)) * sizes.cell
            raise UnsupportedModel(
                f"{profile.name}: {field} {value} is no multiple of {sizes.cell}, which {vae} asks for",
                remedy=f"{field} = {near}",
            )
    frames = profile.frames
    if sizes.interval and (frames - 1) % sizes.interval:
        near = round((frames - 1) / sizes.interval) * sizes.interval + 1
        raise UnsupportedModel(
            f"{profile.name}: frames {frames} is not one and a multiple of {sizes.interval}, which {vae} asks for",
            remedy=f"frames = {near}",
        )
    if not sizes.interval and frames != 1:
        raise UnsupportedModel(
            f"{profile.name}: frames is {frames}, but {vae} makes pictures", remedy="frames = 1"
        )
