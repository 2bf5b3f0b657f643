"""Small editions of the shipped profiles, for the small pipelines of `tiny_folders`."""

from collections.abc import Callable
from pathlib import Path

import pytest

TinyProfile = Callable[[str, str, dict[str, str]], str]


@pytest.fixture
def tiny_profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> TinyProfile:
    """A function (name, of, lines) that puts a small edition of a profile among the shipped ones for the length of a
    test, without its architecture, and returns its name; `lines` are the lines that change, old to new.
    """
    import shutil

    from budc.policies import profile

    shelf = tmp_path / "profiles"
    shutil.copytree(profile._HERE, shelf, ignore=shutil.ignore_patterns("nano", "*.py", "__pycache__"))
    (shelf / "calibration.txt").write_text("a red box\na blue ring\ntwo small stars\na tall house\n")
    (shelf / "held-out.txt").write_text("a green leaf\nan old boat\n")
    monkeypatch.setattr(profile, "_HERE", shelf)

    def add(name: str, of: str, lines: dict[str, str]) -> str:
        text = (shelf / f"{of}.toml").read_text()
        for old, new in {
            f'name = "{of}"': f'name = "{name}"',
            "bfloat16": "float32",
            "calibration_size = 24": "calibration_size = 4",
            **lines,
        }.items():
            assert old in text
            text = text.replace(old, new)
        head, tail = text.split("[architecture.transformer]")
        (shelf / f"{name}.toml").write_text(head + tail[tail.index("[prompts]") :])
        return name

    return add


@pytest.fixture
def flux_profile(tiny_profile: TinyProfile, flux_folder: Path) -> str:
    """The name of a profile for `flux_folder`."""
    changed = {
        "steps = 28": "steps = 6",
        "height = 1024": "height = 32",
        "width = 1024": "width = 48",
        "text_tokens = 512": "text_tokens = 8",
        "prompts/image-": "",
        "held_out_size = 32": "held_out_size = 2",
    }
    return tiny_profile("flux-tiny", "flux.1-dev", changed)


@pytest.fixture
def pair_profile(tiny_profile: TinyProfile) -> str:
    """The name of a profile for `pair_folder`: of six steps, the last three are the second denoiser's."""
    changed = {
        "steps = 40": "steps = 6",
        "height = 480": "height = 32",
        "width = 832": "width = 48",
        "frames = 81": "frames = 5",
        "text_tokens = 512": "text_tokens = 8",
        "prompts/video-": "",
        "held_out_size = 24": "held_out_size = 2",
    }
    return tiny_profile("pair-tiny", "wan2.2", changed)
