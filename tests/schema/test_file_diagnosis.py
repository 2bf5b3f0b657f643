"""Diagnosis of a file that is not what a policy lists: said for what it is, never taken for another revision."""

import json
from pathlib import Path

import pytest

from budc.schema.digests import check_files, file_digests
from budc.schema.errors import WeightsMismatch
from budc.schema.policy import Variant

CONFIG, WEIGHTS = "transformer/config.json", "transformer/model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    (tmp_path / "transformer").mkdir()
    (tmp_path / CONFIG).write_bytes(b'{\n  "layers": 2\n}\n')
    (tmp_path / WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    return tmp_path


@pytest.fixture
def variant(folder: Path) -> Variant:
    return Variant(name="original", files=file_digests(folder, [CONFIG, WEIGHTS]))


def refusal(folder: Path, variant: Variant) -> WeightsMismatch:
    with pytest.raises(WeightsMismatch) as error:
        check_files(folder, variant)
    return error.value


@pytest.mark.parametrize("length", [0, 7, 20, -1])
def test_a_truncated_file_is_called_incomplete(folder: Path, variant: Variant, length: int) -> None:
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:length])
    error = refusal(folder, variant)
    assert f"{WEIGHTS} in {folder} is incomplete or damaged" in str(error)
    assert error.remedy == "download it again"


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_git_lfs_pointer_is_called_so(folder: Path, variant: Variant, name: str) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 12345\n"
    (folder / name).write_text(pointer)
    error = refusal(folder, variant)
    assert f"{name} in {folder} is a Git LFS pointer" in str(error)
    assert "git lfs pull" in error.remedy


def test_line_ends_of_windows_are_called_so(folder: Path, variant: Variant) -> None:
    path = folder / CONFIG
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    error = refusal(folder, variant)
    assert "line ends of Windows (CRLF)" in str(error)
    assert "core.autocrlf" in error.remedy


def test_another_file_is_another_revision_whatever_its_line_ends(folder: Path, variant: Variant) -> None:
    for content in (b'{"layers": 3}\n', b'{"layers": 3}\r\n'):
        (folder / CONFIG).write_bytes(content)
        error = refusal(folder, variant)
        assert "has sha256" in str(error)
        assert "model revision" in error.remedy
    (folder / CONFIG).write_bytes(b'{\n  "layers": 2\n}\n')
    other = folder / WEIGHTS
    other.write_bytes(other.read_bytes()[:-1] + b"\x01")
    assert "has sha256" in str(refusal(folder, variant))
