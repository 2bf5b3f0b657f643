"""The command line called in this process, artifacts without a model, and a small compiled policy with one."""

import contextlib
import io
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from budc.cli import main
from budc.schema.artifact import seal
from budc.schema.signers import KeyPair, Signer


class Outcome(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def record(self) -> Any:
        return json.loads(self.out)


def call(*arguments: object) -> Outcome:
    """Call `budc` with these arguments."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    return Outcome(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def budc() -> Callable[..., Outcome]:
    """Call the command line: `budc("inspect", path).out`."""
    return call


@pytest.fixture(autouse=True)
def configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, so that no test depends on a user's trust file or hub cache; returns budc's folder in it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    for name in ("HF_HOME", "HF_HUB_CACHE", "BUDC_TRUST", "BUDC_SECRET"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "config" / "budc"


@pytest.fixture
def public(tmp_path: Path, key_pair: KeyPair) -> Path:
    """The file of the public key that `signer` belongs to."""
    path = tmp_path / "release.pub"
    path.write_bytes(key_pair.public)
    return path


@pytest.fixture
def sealed(tmp_path: Path, make_document: Callable[..., Any], signer: Signer) -> Callable[..., Path]:
    """Write an artifact: `sealed(signed=False, not_after=...)`; further fields go to `make_document`."""

    def write(*, signed: bool = True, **fields: Any) -> Path:
        path = tmp_path / "policy.budc.json"
        path.write_bytes(seal(make_document(**fields), signer if signed else None))
        return path

    return write


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A model folder as far as its identity goes; its weights hold no tensor."""
    folder = tmp_path / "model"
    for name, content in {
        "scheduler/scheduler_config.json": b"{}",
        "transformer/config.json": b"{}",
        "transformer/model.safetensors": (2).to_bytes(8, "little") + b"{}",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def read_video() -> Callable[[Path, int, int], Any]:
    """Decode an mp4, which must be of this height and width, to frames (F, H, W, 3) in 0..255."""
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    import numpy as np

    def read(path: Path, height: int, width: int) -> Any:
        # By ffmpeg itself: imageio's reader leaves pipes open, which is an error under pytest.
        ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
        command = [ffmpeg, "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
        done = subprocess.run(command, capture_output=True, check=True)
        assert f" {width}x{height}" in done.stderr.decode()
        return np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3)

    return read


class Compiled(NamedTuple):
    """A policy compiled through the command line."""

    path: Path
    public: Path
    weights: Path
    prompts: Path
    outcome: Outcome


HELD_OUT = 3
"""Held-out prompts of the shrunken profile."""
SMALL = {"height": 32, "width": 48, "frames": 5}


@pytest.fixture(scope="session")
def shrunken() -> Callable[[pytest.MonkeyPatch], None]:
    """Make compiles of the nano profile measure a few prompts at a small size."""
    import msgspec

    import budc.compiler.request as requests

    load = requests.choose_model

    def shrink(monkeypatch: pytest.MonkeyPatch) -> None:
        def smaller(name: str) -> Any:
            profile = load(name)
            prompts = msgspec.structs.replace(profile.prompts, held_out_size=HELD_OUT)
            return msgspec.structs.replace(profile, prompts=prompts, **SMALL)

        monkeypatch.setattr(requests, "choose_model", smaller)

    return shrink


@pytest.fixture(scope="session")
def weights(wan_folder: Path) -> Iterator[Path]:
    """The folder of the untrained pipeline; torch keeps to one thread, more only wait on models so small."""
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield wan_folder
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def compiled(weights: Path, shrunken: Any, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """A signed policy of 3 out of 6 steps, compiled from a policy source and flags."""
    folder = tmp_path_factory.mktemp("compiled")
    (folder / "prompts.txt").write_text("a red circle moves left\na blue cross rises\n")
    (folder / "policy.toml").write_text(
        'model = "wan2.1-nano"\nbudget = 5\nsteps = 6\nsearch = "uniform"\ncalibration = "prompts.txt"\n'
    )
    assert call("keygen", "--out", folder / "release").code == 0
    path = folder / "nano.budc.json"
    with pytest.MonkeyPatch.context() as monkeypatch:
        shrunken(monkeypatch)
        outcome = call(
            "compile",
            folder / "policy.toml",
            *("--budget", "3", "--weights", weights, "--key", folder / "release.key", "--out", path),
        )
    assert outcome.code == 0, outcome.err
    return Compiled(path, folder / "release.pub", weights, folder / "prompts.txt", outcome)
