import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from budc.schema.errors import ArtifactError, ArtifactTooLarge, OutputError
from budc.schema.files import check_place, new_file, read_limited, write_atomic


def test_writing_replaces_the_whole_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "policy.budc.json"
    write_atomic(target, b"long first content")
    write_atomic(target, b"second")
    assert target.read_bytes() == b"second"
    assert os.listdir(tmp_path) == [target.name]


def test_a_private_file_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    write_atomic(tmp_path / "key", b"", mode=0o600)
    assert (tmp_path / "key").stat().st_mode & 0o077 == 0


def test_a_link_is_replaced_and_its_target_left_alone(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"kept")
    (tmp_path / "link").symlink_to("target")
    write_atomic(tmp_path / "link", b"new")
    assert (tmp_path / "target").read_bytes() == b"kept"
    assert not (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("kind", ["pipe", "folder", "link to a pipe", "device", "socket"])
def test_only_regular_files_are_replaced(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "target"
    with socket.socket(socket.AF_UNIX) as listener:
        if kind == "pipe":
            os.mkfifo(target)
        elif kind == "folder":
            target.mkdir()
        elif kind == "link to a pipe":
            os.mkfifo(tmp_path / "pipe")
            target.symlink_to("pipe")
        elif kind == "device":
            target.symlink_to("/dev/null")
        else:
            listener.bind(str(target))
    before = sorted(os.listdir(tmp_path)), target.lstat()
    for write in (check_place, lambda path: write_atomic(path, b"new")):
        with pytest.raises(OutputError, match=r"is not a regular file|is a folder"):
            write(target)
    assert (sorted(os.listdir(tmp_path)), target.lstat()) == before


def test_a_name_as_long_as_the_file_system_allows_can_be_written(tmp_path: Path) -> None:
    name = "é" * 125 + "x" * 5
    write_atomic(tmp_path / name, b"content")
    assert os.listdir(tmp_path) == [name]


def test_what_a_killed_writer_left_is_removed_at_the_next_write(tmp_path: Path) -> None:
    target = tmp_path / "policy"
    script = (
        "import os, signal, sys; from budc.schema import files; "
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL); files.write_atomic(sys.argv[1], b'half')"
    )
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", script, target], check=False).returncode == -9
        assert len(os.listdir(tmp_path)) == 1
    write_atomic(target, b"whole")
    assert os.listdir(tmp_path) == ["policy"]


def test_what_another_writer_is_writing_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "policy"
    replace = os.replace

    def slowly(source: Path, destination: Path) -> None:
        monkeypatch.setattr(os, "replace", replace)
        write_atomic(target, b"second")
        replace(source, destination)

    monkeypatch.setattr(os, "replace", slowly)
    (tmp_path / ".policy.notes").write_text("of the user")
    write_atomic(target, b"first")
    assert target.read_bytes() == b"first"
    assert sorted(os.listdir(tmp_path)) == [".policy.notes", "policy"]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "policy"
    target.write_bytes(b"old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        write_atomic(target, b"new")
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["policy"]


@pytest.mark.parametrize("name", ["missing/policy", "x" * 300, "nul\0", ""])
def test_a_place_that_cannot_be_written_is_an_output_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError):
        write_atomic(tmp_path / name, b"")


def test_reading_stops_at_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_limited(path, 5) == b"12345"
    with pytest.raises(ArtifactTooLarge, match="over 4 bytes"):
        read_limited(path, 4)


def test_what_is_not_a_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "missing", tmp_path / "nul\0", Path("/dev/zero")):
        with pytest.raises(ArtifactError):
            read_limited(path, 10)


def test_a_place_that_cannot_hold_a_file_is_refused_before_there_is_one(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"old")
    check_place(tmp_path / "old")
    check_place(tmp_path / "new")
    assert os.listdir(tmp_path) == ["old"]
    for path, word in (
        (tmp_path, "is a folder"),
        (tmp_path / "missing" / "x", "missing"),
        (tmp_path / "old" / "x", "old"),
    ):
        with pytest.raises(OutputError, match=word):
            check_place(path)


def test_a_new_file_is_one_that_nobody_has(tmp_path: Path) -> None:
    (tmp_path / "x.png").symlink_to(tmp_path / "missing")
    (tmp_path / "x-2.png").mkdir()
    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(lambda _: new_file(tmp_path, "x", ".png"), range(8)))
    assert {path.name for path in made} == {f"x-{number}.png" for number in range(3, 11)}
    assert not (tmp_path / "missing").exists()


def test_a_new_file_in_a_folder_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        new_file(tmp_path / "none", "x", ".png")
