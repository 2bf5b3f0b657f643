"""A model that starts from images, from the command line: compiled, run, transferred, and refused where it must be."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from format_additions import ADDED
from pictures import write_picture, write_prompts

from budc.schema.artifact import read, seal

from_image = ADDED["image"][0]


@pytest.fixture
def for_images(tmp_path: Path, make_document: Any, signer: Any) -> Path:
    """A signed policy for a model that starts from images, without the model."""
    path = tmp_path / "images.budc.json"
    path.write_bytes(seal(from_image(make_document()), signer))
    return path


def test_a_policy_for_images_says_so(budc: Any, for_images: Path, public: Path) -> None:
    assert re.search("image +first-frame", budc("inspect", for_images).out)
    assert "images" in budc("verify", for_images, "--trust", public).out


def test_pictures_are_given_where_the_policy_takes_them(
    budc: Any, for_images: Path, sealed: Any, public: Path, tmp_path: Path
) -> None:
    out, picture = ("--out", tmp_path / "x.png"), write_picture(tmp_path / "1.png")
    run = ("run", for_images, "--trust", public, *out, "--prompt", "a star")
    for flags, said in [
        ((), "is for a model that starts from a picture"),
        (("--image", tmp_path / "gone.png"), "--image: cannot read the image"),
        (("--image", picture, "--image", picture), "2 pictures for 1 prompts"),
        (("--image", picture, "--runtime", "onnxruntime"), "--image: only with --runtime diffusers"),
    ]:
        outcome = budc(*run, *flags)
        assert (outcome.code, said in outcome.err) == (2, True), outcome.err
    outcome = budc("run", sealed(), "--trust", public, *out, "--prompt", "a star", "--image", picture)
    assert outcome.code == 2
    assert "is for a model that takes prompts alone" in outcome.err


def test_an_export_is_refused(budc: Any, image_to_video_folder: Path, tmp_path: Path) -> None:
    model = ("--model", "wan2.1-i2v-14b-480p", "--weights", image_to_video_folder)
    outcome = budc("export", "onnx", *model, "--out", tmp_path / "onnx")
    assert outcome.code == 34
    assert "wan2.1-i2v-14b-480p starts from an image" in outcome.err
    assert not (tmp_path / "onnx").exists()


@pytest.fixture
def key(tmp_path: Path, key_pair: Any) -> Path:
    """The file of the private key that `public` belongs to."""
    path = tmp_path / "release.key"
    path.write_bytes(key_pair.private)
    return path


@pytest.fixture
def prompts(tmp_path: Path) -> tuple[Any, ...]:
    """The flags of two prompt files with images; one of these is 1.png."""
    calibration = write_prompts(tmp_path, "cal.csv", {"a star": 1, "a red ring": 2})
    return "--calibration", calibration, "--held-out", write_prompts(tmp_path, "held.csv", {"a box": 3})


@pytest.fixture
def profile_of_height(budc: Any, image_to_video_folder: Path, tmp_path: Path) -> Any:
    """A function that writes a small profile for the folder, from what `budc init` writes."""

    def write(height: int) -> Path:
        path = tmp_path / f"tiny-{height}.toml"
        assert budc("init", image_to_video_folder, "--out", path).code == 0
        text = path.read_text()
        for name, value in {
            "name": f'"tiny-{height}"', "steps": 6, "height": height, "width": 48, "frames": 5, "text_tokens": 8,
            "dtype": '"float32"',
        }.items():  # fmt: skip
            text, found = re.subn(rf"^{name} = .*$", f"{name} = {value}", text, flags=re.MULTILINE)
            assert found == 1, name
        path.write_text(text)
        return path

    return write


@pytest.mark.slow
def test_a_policy_for_two_sizes_is_compiled_run_and_replayed(
    budc: Any, profile_of_height: Any, prompts: Any, image_to_video_folder: Path, tmp_path: Path, key: Path,
    public: Path, read_video: Any,
) -> None:  # fmt: skip
    profile, policy = profile_of_height(32), tmp_path / "two.budc.json"
    sizes, search = ("--shape", "32x48x5", "--shape", "48x32x5"), ("--budget", "3", "--search", "uniform")
    made = budc("compile", "--model", profile, *search, *sizes, *prompts, "--key", key, "--out", policy)
    assert made.code == 0, made.err
    given = (policy, "--weights", image_to_video_folder, "--trust", public)
    clip = ("--prompt", "a star", "--image", tmp_path / "1.png", "--out", tmp_path / "x.mp4")
    run = budc("run", *given, *clip, "--compare")
    assert run.code == 0, run.err
    assert len(read_video(tmp_path / "x.mp4", 32 * 4 + 2 * 18, 3 * 48 * 4)) == 5
    replayed = budc("verify", *given, "--replay", "--model", profile, *prompts[2:])
    assert replayed.code == 0, replayed.err
    samples = ("--prompts", prompts[3], "--calibration", prompts[1], "--against", "taylorseer-1,uniform")
    flags = ("--model", profile, *samples, "--metrics", "psnr", "--under", "size=48x32", "--repeats", "0")
    evaluated = budc("evaluate", *given, *flags, "--out", tmp_path / "evaluation")
    assert evaluated.code == 0, evaluated.err
    (written,) = (tmp_path / "evaluation").glob("*.evaluation.json")
    settings, document = json.loads(written.read_bytes())["settings"], read(policy).document
    for setting, quality in zip(
        settings, (document.quality, document.further_shapes[0].quality), strict=True
    ):
        assert setting["methods"][0]["metrics"][0]["mean"] == quality.metrics[0].mean


@pytest.mark.slow
def test_a_policy_is_carried_over_to_another_size(
    budc: Any, profile_of_height: Any, prompts: Any, tmp_path: Path, key: Path, public: Path
) -> None:
    small, large, search = (
        profile_of_height(32),
        profile_of_height(48),
        ("--budget", "3", "--search", "uniform"),
    )
    policy, other = tmp_path / "small.budc.json", tmp_path / "large.budc.json"
    made = budc("compile", "--model", small, *search, *prompts, "--key", key, "--out", policy)
    assert made.code == 0, made.err
    moved = budc("transfer", policy, "--to", large, *prompts, "--trust", public, "--key", key, "--out", other)
    assert moved.code == 0, moved.err
    document = read(other).document
    assert document.images == from_image(document).images
    assert document.shape is not None
    assert document.shape.height == 48
    no_images = budc(
        "transfer", policy, "--to", large, "--trust", public, "--key", key, "--out", tmp_path / "x.json"
    )
    assert no_images.code == 2
    assert "tiny-48 starts from images, and its profile names none" in no_images.err
