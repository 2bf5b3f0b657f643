"""A model of one's own, from its folder to its report, without a change of the package."""

from pathlib import Path

import pytest

from budc.policies.profile import embedded_folder, load_profile

SMALL = {
    "steps = 50": "steps = 4",
    "height = 480": "height = 32",
    "width = 832": "width = 48",
    "frames = 81": "frames = 5",
    "text_tokens = 512": "text_tokens = 16",
    'dtype = "bfloat16"': 'dtype = "float32"',
    '"prompts/video-calibration.txt"': '"calibration.txt"',
    '"prompts/video-held-out.txt"': '"held-out.txt"',
    "_size = 24": "_size = 2",
}


def test_the_profile_is_written_once_and_says_how_to_go_on(budc, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = embedded_folder(load_profile("flux-nano"))
    outcome = budc("init", folder)
    assert outcome.code == 0
    path = tmp_path / "my-flux-nano.toml"
    assert "wrote   my-flux-nano.toml\nfamily  flux-nano, deployed as flux-nano" in outcome.out
    assert "budc compile --model my-flux-nano.toml" in outcome.out
    assert "what a policy skips: transformer_blocks (1), single_transformer_blocks (4)" in path.read_text()
    again = budc("init", folder)
    assert (again.code, "is there already" in again.err) == (61, True)
    printed = budc("init", folder, "--out", "-", "--like", "flux.1-dev")
    assert "height = 1024" in printed.out


def test_a_folder_that_is_no_model_is_refused(budc, tmp_path):
    assert budc("init", tmp_path / "gone").code == 31
    assert budc("init", tmp_path).code == 31
    assert not list(tmp_path.glob("*.toml"))


@pytest.fixture(scope="module")
def own(weights, tmp_path_factory) -> Path:
    """A profile in TOML for the untrained model, at a small size, with prompts of its own."""
    from budc.cli import main

    folder = tmp_path_factory.mktemp("own")
    path = folder / "mine.toml"
    assert main(["init", str(weights), "--out", str(path)]) == 0
    text = path.read_text()
    for old, new in SMALL.items():
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    (folder / "calibration.txt").write_text("a red circle\na blue cross\n")
    (folder / "held-out.txt").write_text("a green box\ntwo stars\n")
    assert main(["keygen", "--out", str(folder / "release")]) == 0
    out = ["--out", str(folder / "mine.budc.json"), "--key", str(folder / "release.key")]
    assert main(["compile", "--model", str(path), "--budget", "2", "--search", "uniform", *out]) == 0
    return path


def test_a_policy_for_it_runs_without_the_profile_and_is_measured_again_with_it(budc, own, weights, tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    policy, trust = own.with_name("mine.budc.json"), ("--trust", own.with_name("release.pub"))
    document = budc("inspect", policy, "--json").record["document"]
    assert (document["model"]["profile"], document["model"]["family"]) == (weights.name, "wan2.1")
    assert (document["shape"]["height"], document["sampler"]["steps"]) == (32, 4)
    run = ("run", policy, *trust, "--prompt", "a red circle", "--out", tmp_path / "clip.mp4")
    assert budc(*run, "--weights", weights).code == 0
    assert budc(*run, "--model", own).code == 0
    missing = budc(*run)
    assert (missing.code, "--weights DIR" in missing.err) == (31, True)
    verify = ("verify", policy, *trust, "--weights", weights, "--replay")
    assert budc(*verify, "--model", own).code == 0
    refused = budc(*verify)
    assert (refused.code, "--model PROFILE.toml" in refused.err) == (34, True)


def test_a_policy_for_its_quantised_edition_is_made_and_run_as_such(budc, own, weights, tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    policy, trust = tmp_path / "fp8.budc.json", ("--trust", own.with_name("release.pub"))
    flags = ("--budget", "2", "--search", "uniform", "--key", own.with_name("release.key"), "--out", policy)
    assert budc("compile", "--model", own, "--quantize", "fp8-storage", *flags).code == 0
    page = budc("inspect", policy)
    assert "quantised by fp8-storage" in page.out
    run = ("run", policy, *trust, "--prompt", "a red circle", "--weights", weights)
    assert budc(*run, "--out", tmp_path / "clip.mp4").code == 0
    assert budc("verify", policy, *trust, "--weights", weights, "--replay", "--model", own).code == 0
    other = budc("compile", "--model", own, "--quantize", "fp8", *flags)
    assert (other.code, "known kinds: fp8-storage, torchao-int8-weights" in other.err) == (2, True)


@pytest.mark.parametrize(
    ("old", "new", "code", "said"),
    [
        ("height = 32", "height = 40", 34, "height 40 is no multiple of 16"),
        ("frames = 5", "frames = 4", 34, "frames 4 is not one and a multiple of 4"),
        ("num_layers = 2", "num_layers = 3", 34, "num_layers is 2, but wan has 3"),
        ("guidance = 5.0", "guidance = 0.5", 2, "guidance is 0.5, at which"),
        ("UniPCMultistepScheduler", "NoSuchScheduler", 34, "NoSuchScheduler"),
    ],
)
def test_a_profile_that_contradicts_the_weights_is_refused(budc, own, tmp_path, old, new, code, said):
    text = own.read_text()
    assert old in text
    path = own.with_name(f"changed-{code}.toml")
    path.write_text(text.replace(old, new, 1))
    outcome = budc("compile", "--model", path, "--budget", "2", "--out", tmp_path / "x.budc.json")
    assert outcome.code == code
    assert said in outcome.err
    assert not list(tmp_path.glob("*.json"))
