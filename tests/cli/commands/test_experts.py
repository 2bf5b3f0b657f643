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


@pytest.mark.slow
def test_an_export_of_both_is_bound_and_runs(budc, policy, pair_profile, pair_folder, tmp_path):
    pytest.importorskip("onnxscript")
    export, bound, key = tmp_path / "onnx", tmp_path / "bound.budc.json", tmp_path / "release.key"
    assert budc("keygen", "--out", tmp_path / "release").code == 0
    assert budc("sign", policy, "--key", key).code == 0
    outcome = budc("export", "onnx", "--model", pair_profile, "--weights", pair_folder, "--out", export)
    assert outcome.code == 0, outcome.err
    assert "transformer_2/compute.onnx" in outcome.out
    flags = ("--weights", pair_folder, "--samples", "1", "--key", key, "--out", bound)
    outcome = budc("bind", policy, "--variant", export, *flags)
    assert outcome.code == 0, outcome.err
    flags = ("--runtime", "onnxruntime", "--weights", export, "--prompt", "a red box")
    outcome = budc("run", bound, "--trust", tmp_path / "release.pub", *flags, "--out", tmp_path / "a.png")
    assert outcome.code == 0, outcome.err


def test_a_plan_of_the_real_model_has_one_denoiser_on_the_device(budc):
    record = budc("plan", "--model", "wan2.2", "--budget", "10", "--device", "h100", "--json").record
    memory = {phase["phase"]: phase["whole"] for phase in record["memory"]}
    # The weights of one are 28.6 GB.
    assert 28.6e9 < memory["reference run"] < 1.5 * 28.6e9
    assert budc("plan", "--model", "wan2.2", "--budget", "1", "--device", "h100").code == 51
