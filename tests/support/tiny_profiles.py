"""Small editions of the shipped profiles, for the small pipelines of `tiny_folders`."""

import importlib
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

TinyProfile = Callable[..., str]


@pytest.fixture
def tiny_profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> TinyProfile:
    """A function (name, of, **settings) that puts a small edition of a profile among the shipped ones for the length of a
    test, in float32, with six steps, few prompts and no architecture, and returns its name.
    """
    return small_profiles(monkeypatch, tmp_path / "profiles")


def small_profiles(monkeypatch: pytest.MonkeyPatch, shelf: Path) -> TinyProfile:
    """Return that function for as long as `monkeypatch` holds; the profiles lie in `shelf`, which it makes."""
    from budc.policies import profile

    shutil.copytree(profile._HERE, shelf, ignore=shutil.ignore_patterns("nano", "*.py", "__pycache__"))
    (shelf / "calibration.txt").write_text("a red box\na blue ring\ntwo small stars\na tall house\n")
    (shelf / "held-out.txt").write_text("a green leaf\nan old boat\n")
    monkeypatch.setattr(profile, "_HERE", shelf)

    def add(name: str, of: str, **settings: int | str) -> str:
        head, tail = (shelf / f"{of}.toml").read_text().split("[architecture.transformer]")
        text = head + tail[tail.index("[prompts]") :]
        prompts = {"calibration": '"calibration.txt"', "held_out": '"held-out.txt"'}
        sizes = {"calibration_size": 4, "held_out_size": 2}
        fixed = {"name": f'"{name}"', "dtype": '"float32"', "steps": 6} | prompts | sizes
        for key, value in (fixed | settings).items():
            text, found = re.subn(rf"^{key} = .*$", f"{key} = {value}", text, flags=re.MULTILINE)
            assert found == 1, key
        (shelf / f"{name}.toml").write_text(text)
        return name

    return add


@pytest.fixture
def short_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every search try a few candidates and alignment train for one epoch: enough to run each of their parts."""
    for name, value in {
        "selection.alignment.epochs": lambda nfe, given: 1,
        "search.joint.ROLLOUT_LIMIT": (0.0, 4.0, 4.0),
        "search.anneal.MOVES": 5,
        "search.hillclimb.ROUNDS": 2,
        "search.paper.ANNEALING_STEPS": 5,
    }.items():
        module, constant = f"budc.compiler.{name}".rsplit(".", 1)
        monkeypatch.setattr(importlib.import_module(module), constant, value)


def tiny_flux(add: TinyProfile) -> str:
    """Add a profile for `flux_folder` and return its name."""
    return add("flux-tiny", "flux.1-dev", height=32, width=48, text_tokens=8)


@pytest.fixture
def flux_profile(tiny_profile: TinyProfile, flux_folder: Path) -> str:
    """The name of a profile for `flux_folder`."""
    return tiny_flux(tiny_profile)


@pytest.fixture(scope="module")
def image_to_video_profile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of a profile for `image_to_video_folder`, among the shipped ones for the length of a module; it has no
    prompts.
    """
    size = {"height": 32, "width": 48, "frames": 5, "text_tokens": 8}
    with pytest.MonkeyPatch.context() as monkeypatch:
        add = small_profiles(monkeypatch, tmp_path_factory.mktemp("shelf") / "profiles")
        yield add("image-to-video-tiny", "wan2.1-i2v-14b-480p", **size, calibration='""', held_out='""')


@pytest.fixture
def pair_profile(tiny_profile: TinyProfile) -> str:
    """The name of a profile for `pair_folder`: of six steps, the last three are the second denoiser's."""
    return tiny_profile("pair-tiny", "wan2.2", height=32, width=48, frames=5, text_tokens=8)
