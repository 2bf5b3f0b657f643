"""Kept tensors lie in files where the memory of the host is short, and nothing is left of these."""

import errno
import os
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from budc.compiler.storage import spill  # noqa: E402
from budc.schema.errors import OutputError  # noqa: E402


def mapped(folder: Path) -> bool:
    """Whether this process has a file of the folder mapped into its memory."""
    return str(folder) in Path("/proc/self/maps").read_text()


def test_a_tensor_is_kept_as_it_is_where_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spill, "RESERVE", 0.0)
    tensor = torch.ones(3)
    assert spill.kept(tensor, tmp_path) is tensor
    assert spill.empty((2, 3), torch.bfloat16, tmp_path).shape == (2, 3)
    assert not mapped(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_where_memory_is_short_it_lies_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(spill, "RESERVE", 1.0)
    tensor = torch.arange(6, dtype=dtype).view(2, 3)
    kept, empty = spill.kept(tensor, tmp_path), spill.empty((2, 3), dtype, tmp_path)
    empty[1] = tensor[1]
    assert torch.equal(kept, tensor)
    assert torch.equal(empty[1], tensor[1])
    assert mapped(tmp_path)
    assert not list(tmp_path.iterdir())
    del kept, empty
    assert not mapped(tmp_path)


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(spill, "RESERVE", 1.0)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OutputError, match="what rollouts keep could not be written: No space left"):
        spill.kept(torch.ones(3), tmp_path)


def test_a_folder_that_is_gone_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill, "RESERVE", 1.0)
    with pytest.raises(OutputError, match="gone: what rollouts keep could not be written"):
        spill.kept(torch.ones(3), tmp_path / "gone")
