import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from budc.compiler.export.atomic_folder import atomic_folder
from budc.schema.errors import OutputError

HALF = """
import sys, time
from pathlib import Path
from budc.compiler.export.atomic_folder import atomic_folder
with atomic_folder(Path(sys.argv[1])) as folder:
    (folder / "sub").mkdir()
    (folder / "sub" / "half").write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """Where a folder was being made by a process that was killed."""
    out = tmp_path / "out"
    with subprocess.Popen([sys.executable, "-c", HALF, out], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        with pytest.raises(OutputError, match="another process"), atomic_folder(out):
            pass
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    return out


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with atomic_folder(out) as folder:
        (folder / "a").write_text("a")
        assert not out.exists()
        assert folder.name.startswith(".")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (out / "a").read_text() == "a"


def test_a_kill_leaves_no_folder_and_the_next_attempt_clears_up(killed: Path) -> None:
    assert not killed.exists()
    assert [path.name for path in killed.parent.iterdir()] == [".out.partial"]
    with atomic_folder(killed) as folder:
        assert list(folder.iterdir()) == []
        (folder / "a").write_text("a")
    assert [path.name for path in killed.parent.iterdir()] == ["out"]
    assert [path.name for path in killed.iterdir()] == ["a"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_stays_of_what_failed(tmp_path: Path, error: type[BaseException]) -> None:
    def fail() -> None:
        with atomic_folder(tmp_path / "out") as folder:
            (folder / "a").write_text("a")
            raise error

    with pytest.raises(error):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_what_exists_is_never_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(OutputError, match="exists"), atomic_folder(out):
        pass
    out.rmdir()
    out.symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError, match="exists"), atomic_folder(out):
        pass
    out.unlink()
    with pytest.raises(OutputError, match="exists"), atomic_folder(out):
        out.mkdir()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_link_in_place_of_the_hidden_folder_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "a").write_text("a")
    (tmp_path / ".out.partial").symlink_to(precious)
    with pytest.raises(OutputError), atomic_folder(tmp_path / "out"):
        pass
    assert (precious / "a").read_text() == "a"


def test_a_path_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="not a folder"), atomic_folder(tmp_path / "missing" / "out"):
        pass
    if os.geteuid() != 0:
        tmp_path.chmod(0o500)
        with pytest.raises(OutputError, match="cannot write"), atomic_folder(tmp_path / "out"):
            pass
