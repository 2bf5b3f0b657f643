"""`budc evaluate`: what it measures, beside what the policy's own report says, and what it refuses."""

from functools import cache

import msgspec
import pytest

torch = pytest.importorskip("torch")

from budc.schema.artifact import read  # noqa: E402
from budc.schema.evaluation import EvaluationDocument  # noqa: E402


@pytest.fixture(scope="module")
def compiled(budc, tmp_path_factory, flux_folder):
    """A uniform policy for the tiny FLUX, unsigned: made once for the same profile and flags."""

    @cache
    def compile_(profile, *flags):
        path = tmp_path_factory.mktemp("policy") / "policy.budc.json"
        given = ("--budget", "3", "--search", "uniform", "--weights", flux_folder, "--out", path)
        outcome = budc("compile", "--model", profile, *given, *flags)
        assert outcome.code == 0, outcome.err
        return path

    return compile_


@pytest.fixture
def evaluate(budc, flux_folder, tmp_path):
    """Evaluate without a signature, into one folder; return the outcome."""

    def call(*arguments):
        out = tmp_path / "evaluation"
        return budc("evaluate", *arguments, "--allow-unsigned", "--weights", flux_folder, "--out", out)

    return call


RIGID = ("policy", "fewer-steps", "taylorseer-1", "dpcache", "lemica", "meancache")
"""Methods that take the same evaluations for each sample."""


def methods(document, setting="calibrated"):
    return {method.name: method for method in document.setting(setting).methods}


def mean(method, name="latent-mse"):
    return next(metric.mean for metric in method.metrics if metric.name == name)


def test_an_evaluation_says_what_the_report_says_and_more(
    evaluate, compiled, flux_profile, tmp_path, monkeypatch
):
    path = compiled(flux_profile)
    flags = ("--metrics", "psnr,ssim", "--repeats", "2", "--under", "scheduler=ipndm2m")
    rivals = "fewer-steps,uniform,teacache,magcache,taylorseer-1,dpcache,lemica,meancache"
    outcome = evaluate(path, *flags, "--against", rivals)
    assert outcome.code == 0, outcome.err
    artifact = read(path)
    written = tmp_path / "evaluation" / f"{artifact.document.name}.evaluation.json"
    document = msgspec.json.decode(written.read_bytes(), type=EvaluationDocument)
    assert document.policy == artifact.policy_id
    rows, reported = methods(document), artifact.document.quality
    # The same prompts, the same rollout: the very figures of the report.
    assert document.setting("calibrated").prompts == reported.held_out
    assert rows["policy"].metrics[0] == reported.metrics[0]
    assert mean(rows["policy"], "psnr") == reported.metrics[1].mean
    # The policy is the uniform mask.
    assert mean(rows["uniform"]) == mean(rows["policy"])
    assert (mean(rows["full"]), mean(rows["full"], "psnr"), mean(rows["full"], "ssim")) == (0, 120, 1)
    assert rows["full"].nfe == 6
    assert {rows[name].nfe for name in RIGID} == {3}
    # A threshold meets its budget as nearly as it can.
    assert abs(rows["teacache"].nfe - 3) <= 1
    assert rows["magcache"].fitting_forwards == 6 * 4
    assert all(row.latency.repeats == 2 and row.latency.fastest > 0 for row in rows.values())
    # Under another solver everything is measured against that solver's own full run.
    other = methods(document, "scheduler=ipndm2m")
    assert document.setting("scheduler=ipndm2m").scheduler == "IPNDM2MScheduler"
    assert mean(other["full"]) == 0
    assert mean(other["policy"]) not in (0, mean(rows["policy"]))

    from budc.compiler.models.denoiser import ModelDenoiser

    def computed(*arguments):
        raise AssertionError("something was measured twice")

    monkeypatch.setattr(ModelDenoiser, "compute", computed)
    again = evaluate(path, *flags, "--against", "uniform,lemica", "--json")
    assert again.code == 0, again.err
    assert [method["name"] for method in again.record[0]["settings"][0]["methods"]] == [
        "policy",
        "uniform",
        "lemica",
        "full",
    ]


@pytest.mark.slow
def test_learned_solvers_are_measured_beside_the_others(evaluate, compiled, flux_profile):
    against = ("--against", "fewer-steps,ld3,dyweight", "--no-frames", "--repeats", "0", "--json")
    outcome = evaluate(compiled(flux_profile), *against)
    assert outcome.code == 0, outcome.err
    rows = {method["name"]: method for method in outcome.record[0]["settings"][0]["methods"]}
    assert {rows[name]["nfe"] for name in ("fewer-steps", "ld3", "dyweight")} == {3}
    assert rows["dyweight"]["fittingForwards"] == rows["ld3"]["fittingForwards"] > 0
    errors = [rows[name]["metrics"][0]["mean"] for name in ("fewer-steps", "ld3", "dyweight")]
    assert len(set(errors)) == 3


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ("--against", "teacahe"),
            "--against: 'teacahe' is no method that is known here\n  try: did you mean teacache?",
        ),
        (("--under", "steps=4"), "a policy says of each of its steps whether it is computed"),
        (("--under", "scheduler=heun"), "--under: scheduler=heun: 'heun' is no solver"),
        (("--under", "size=big"), "'big' is no size"),
        (("--under", "size=33x48"), "height 33 is no multiple of 4"),
        (("--under", "guidance=4", "--under", "guidance=4"), "guidance=4 is there twice"),
        (("--under", "negative=dark"), "has no negative prompt"),
        (("--under", "lora=none.safetensors"), "none.safetensors"),
        (("--metrics", "psrn"), "did you mean psnr?"),
        (("--no-frames", "--metrics", "psnr"), "--no-frames: --metrics needs frames"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_loaded(
    evaluate, compiled, flux_profile, flags, said
):
    outcome = evaluate(compiled(flux_profile), *flags)
    assert said in outcome.err
    # The sizes that a model can make, and the adapter's file, are looked up in its folder.
    assert outcome.code == {"height": 34, "none.s": 31}.get(said[:6], 2), outcome.err


def test_policies_of_two_settings_are_refused(evaluate, compiled, flux_profile):
    first, second = (
        compiled(flux_profile, "--name", "a"),
        compiled(flux_profile, "--name", "b", "--guidance", "2"),
    )
    outcome = evaluate(first, second)
    assert outcome.code == 2
    assert "b was calibrated with another guidance than a: 2.0, not" in outcome.err
