"""A profile that contradicts its weights is refused by both values, before anything is loaded."""

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from budc.compiler.models.fit import Grid, check_fit, grid
from budc.policies.profile import embedded_folder, load_profile, profile_names
from budc.schema.errors import BudcError, UnsupportedModel, WeightsMissing

NANO, FLUX = load_profile("wan2.1-nano"), load_profile("flux-nano")


@pytest.mark.parametrize("name", [name for name in profile_names() if load_profile(name).embedded])
def test_embedded_models_fit(name: str) -> None:
    profile = load_profile(name)
    check_fit(profile, embedded_folder(profile))


@pytest.mark.parametrize(
    ("vae", "transformer", "expected"),
    [
        ({"_class_name": "AutoencoderKLWan"}, {"patch_size": [1, 2, 2]}, Grid(16, 4)),
        ({"_class_name": "AutoencoderKLHunyuanVideo"}, {"patch_size": 2}, Grid(16, 4)),
        ({"_class_name": "AutoencoderKL", "block_out_channels": [1, 2, 3, 4]}, {"patch_size": 1}, Grid(16, 0)),
        ({"_class_name": "AutoencoderKLQwenImage", "temperal_downsample": [0, 1, 1]}, {"patch_size": 2}, Grid(16, 0)),
        ({"_class_name": "AutoencoderKL", "block_out_channels": [1, 2, 3, 4]}, {"all_patch_size": [2]}, Grid(16, 0)),
        ({"_class_name": "AutoencoderKLWan", "scale_factor_spatial": "8"}, {"patch_size": [1, 2, "2"]}, Grid(16, 4)),
        ({"_class_name": None, "block_out_channels": 4}, {"patch_size": None}, Grid(2, 0)),
    ],
)  # fmt: skip
def test_sizes_come_in_the_cells_of_vae_and_transformer(
    vae: dict[str, Any], transformer: dict[str, Any], expected: Grid
) -> None:
    assert grid(vae, transformer) == expected


SHAPES = [
    (NANO, {"height": 65}, "height 65 is no multiple of 16", "height = 64"),
    (NANO, {"width": 40}, "width 40 is no multiple of 16", "width = 32"),
    (NANO, {"frames": 8}, "frames 8 is not one and a multiple of 4", "frames = 9"),
    (FLUX, {"frames": 5}, "frames is 5, but .* makes pictures", "frames = 1"),
    (FLUX, {"height": 72}, "height 72 is no multiple of 16", "height = 64"),
    (
        FLUX,
        {"guidance_rule": "classifier-free", "branches": ("cond", "uncond")},
        "guidance_embeds true: the network is distilled",
        "distilled",
    ),
]


@pytest.mark.parametrize(("profile", "change", "message", "remedy"), SHAPES)
def test_what_the_model_cannot_make_is_refused_with_what_it_can(
    profile: Any, change: dict[str, Any], message: str, remedy: str
) -> None:
    with pytest.raises(UnsupportedModel, match=message) as refused:
        check_fit(msgspec.structs.replace(profile, **change), embedded_folder(profile))
    assert remedy in refused.value.remedy


def without_guidance(folder: Path) -> None:
    path = folder / "transformer" / "config.json"
    path.write_text(path.read_text().replace('"guidance_embeds": true', '"guidance_embeds": false'))


def without_scheduler(folder: Path) -> None:
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"scheduler": [None, None]}))


FOLDERS = {
    "guidance": (without_guidance, UnsupportedModel, "guidance_embeds false: the network takes no guidance"),
    "scheduler": (without_scheduler, WeightsMissing, "names no scheduler"),
    "vae": (lambda folder: shutil.rmtree(folder / "vae"), WeightsMissing, r"vae/config\.json: no such file"),
}


@pytest.mark.parametrize(("change", "kind", "message"), FOLDERS.values(), ids=FOLDERS)
def test_a_folder_that_the_profile_is_not_true_of(
    tmp_path: Path, change: Any, kind: type[BudcError], message: str
) -> None:
    folder = tmp_path / "flux"
    shutil.copytree(embedded_folder(FLUX), folder, ignore=shutil.ignore_patterns("*.safetensors"))
    check_fit(FLUX, folder)
    change(folder)
    with pytest.raises(kind, match=message):
        check_fit(FLUX, folder)
