"""Adapters as the user names them: FILE[:SCALE][@DENOISER]."""

import json
from pathlib import Path

import pytest

from budc.policies.adapter_files import adapter_files
from budc.schema.errors import UnsafeWeights, UnsupportedModel, UsageError, WeightsMissing

ONE = ["transformer"]
TWO = ["transformer", "transformer_2"]


@pytest.fixture
def style(tmp_path):
    return safetensors(tmp_path / "style.safetensors", "transformer.a.lora_A.weight")


def safetensors(path: Path, name: str) -> Path:
    header = json.dumps({name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    return path


def test_a_file_a_scale_and_a_denoiser(style):
    (file,) = adapter_files([str(style)], ONE)
    assert (file.path, file.scale, file.name, file.denoiser) == (style, 1.0, "style", None)
    assert adapter_files([f"{style}:0.8"], ONE)[0].scale == 0.8
    assert adapter_files([f"{style}:-1e-1"], ONE)[0].scale == -0.1
    low, high = adapter_files([f"{style}:0.8@transformer", f"{style}@transformer_2"], TWO)
    assert (low.scale, low.is_for("transformer"), low.is_for("transformer_2")) == (0.8, True, False)
    assert (high.scale, high.denoiser) == (1.0, "transformer_2")


def test_names_are_those_of_the_files_in_characters_that_an_artifact_takes(tmp_path):
    paths = [tmp_path / folder / "Öl: bild (2).safetensors" for folder in "ab"]
    for path in paths:
        path.parent.mkdir()
        safetensors(path, "x.lora_A.weight")
    assert [file.name for file in adapter_files([f"{path}:1" for path in paths], ONE)] == [
        "l-bild-2",
        "l-bild-2--2",
    ]


@pytest.mark.parametrize("scale", ["0", "nan", "inf", "1001"])
def test_a_scale_that_does_nothing_or_too_much_is_refused(style, scale):
    with pytest.raises(UsageError, match=r"--lora: .* names no file with a scale other than 0"):
        adapter_files([f"{style}:{scale}"], ONE)


def test_a_file_is_loaded_once_into_a_denoiser(style):
    with pytest.raises(UsageError, match=r"--lora: .*style\.safetensors is there twice"):
        adapter_files([f"{style}:0.5", str(style)], ONE)
    with pytest.raises(UsageError, match="is there twice"):
        adapter_files([f"{style}@transformer_2", str(style)], TWO)


def test_files_that_cannot_be_used_are_refused_before_anything_is_loaded(tmp_path, style):
    with pytest.raises(WeightsMissing, match=r"--lora: .*gone\.safetensors"):
        adapter_files([str(tmp_path / "gone.safetensors")], ONE)
    (tmp_path / "style.bin").write_bytes(b"x")
    with pytest.raises(UnsafeWeights, match=r"--lora: .*style\.bin is no safetensors file"):
        adapter_files([str(tmp_path / "style.bin")], ONE)
    (tmp_path / "cut.safetensors").write_bytes(style.read_bytes()[:-2])
    with pytest.raises(UnsafeWeights, match=r"--lora: .*cut\.safetensors"):
        adapter_files([str(tmp_path / "cut.safetensors")], ONE)
    text = safetensors(tmp_path / "text.safetensors", "text_encoder.a.lora_A.weight")
    with pytest.raises(UnsupportedModel, match="changes a text encoder too"):
        adapter_files([str(text)], ONE)
    with pytest.raises(UsageError, match="--lora"):
        adapter_files([""], ONE)
