"""The command line with a model of two denoisers: compiled, shown, verified, run."""

import pytest

pytest.importorskip("torch")
imageio = pytest.importorskip("imageio.v3")


@pytest.fixture
def policy(budc, pair_profile, pair_folder, tmp_path):
    """The artifact of a compile, unsigned."""
    path = tmp_path / "pair.budc.json"
    flags = ("--budget", "3", "--search", "uniform", "--weights", pair_folder, "--out", path)
    outcome = budc("compile", "--model", pair_profile, *flags)
    assert outcome.code == 0, outcome.err
    return path


def test_from_the_policy_to_the_clip(budc, policy, pair_folder, tmp_path):
    shown = budc("inspect", policy)
    assert "guidance 4 (classifier-free)" in shown.out
    assert "transformer_2 from step 3 on, guidance 3\n" in shown.out
    out = tmp_path / "clip.png"
    flags = ("--allow-unsigned", "--prompt", "a red box", "--compare", "--out", out)
    outcome = budc("run", policy, "--weights", pair_folder, *flags)
    assert outcome.code == 0, outcome.err
    assert imageio.imread(out).ndim == 3
    table = {line.split("  ")[0]: line.split() for line in outcome.out.splitlines()}
    # Run with the second guidance that it was measured with, or it would have been refused.
    assert "uncalibrated" not in outcome.out
    assert float(table["policy"][-2]) > 0


def test_what_takes_one_denoiser_refuses_two(budc, policy, pair_profile, pair_folder, tmp_path):
    pytest.importorskip("onnxscript")
    from budc.cli.generation.binding import find_original
    from budc.policies.profile import load_profile
    from budc.schema.artifact import read
    from budc.schema.digest_cache import DigestCache
    from budc.schema.errors import UnsupportedModel

    flags = ("--weights", pair_folder, "--out", tmp_path / "onnx")
    outcome = budc("export", "onnx", "--model", pair_profile, *flags)
    said = "pair-tiny has 2 denoisers (transformer, transformer_2), one is supported"
    assert outcome.code == 34
    assert f"export: {said}" in outcome.err
    with pytest.raises(UnsupportedModel) as refused:
        find_original(read(policy).document, load_profile(pair_profile), pair_folder, DigestCache())
    assert str(refused.value) == f"bind: {said}"


def test_a_plan_of_the_real_model_has_one_denoiser_on_the_device(budc):
    record = budc("plan", "--model", "wan2.2", "--budget", "10", "--device", "h100", "--json").record
    memory = {phase["phase"]: phase["whole"] for phase in record["memory"]}
    # The weights of one are 28.6 GB.
    assert 28.6e9 < memory["reference run"] < 1.5 * 28.6e9
    assert budc("plan", "--model", "wan2.2", "--budget", "1", "--device", "h100").code == 51
