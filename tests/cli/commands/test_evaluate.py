"""`budc evaluate`: what it measures, beside what the policy's own report says, and what it refuses."""

import json
from functools import cache

import msgspec
import pytest
from lora import write_lora

torch = pytest.importorskip("torch")

from budc.compiler.training import schedule_alignment, second_stage  # noqa: E402
from budc.schema.artifact import read  # noqa: E402
from budc.schema.attestation import read_evaluation  # noqa: E402
from budc.schema.evaluation import EvaluationDocument  # noqa: E402
from budc.schema.frame_files import read_frames  # noqa: E402
from budc.schema.keys import load_public  # noqa: E402


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


def test_a_further_shape_is_measured_with_its_own_coefficients(evaluate, compiled, flux_profile, tmp_path):
    path = compiled(flux_profile, "--shape", "32x48", "--shape", "48x48", "--no-frames")
    (further,) = read(path).document.further_shapes
    outcome = evaluate(path, "--no-frames", "--against", "none", "--repeats", "0", "--under", "size=48x48")
    assert outcome.code == 0, outcome.err
    (written,) = (tmp_path / "evaluation").glob("*.evaluation.json")
    document = msgspec.json.decode(written.read_bytes(), type=EvaluationDocument)
    # The same prompts, the same rollout: the very figures of the report.
    assert methods(document, "size=48x48")["policy"].metrics[0] == further.quality.metrics[0]
    assert further.quality.metrics[0] != methods(document)["policy"].metrics[0]


RIGID = ("policy", "fewer-steps", "taylorseer-1", "dpcache", "lemica", "meancache", "dpcache-linear")
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
    short = second_stage.Configuration(samples=4, batch=4, clip=1.0)
    monkeypatch.setattr(schedule_alignment, "configuration", lambda branches: short)
    rivals = "paper,paper-aligned,fewer-steps,uniform,teacache,magcache,taylorseer-1,dpcache,lemica,meancache,dpcache-linear"
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
    # Schedule alignment: the full run of three further prompts, and one step of training on all four.
    paper, aligned = rows["paper"], rows["paper-aligned"]
    assert aligned.nfe == paper.nfe == 3
    assert mean(aligned) != mean(paper)
    assert aligned.fitting_forwards - paper.fitting_forwards == 3 * 6 + 4 * 3 * (1 + 2)
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


def test_frames_of_some_prompts_are_kept(evaluate, compiled, flux_profile, budc, tmp_path):
    path = compiled(flux_profile)
    flags = ("--metrics", "psnr", "--against", "none", "--repeats", "0", "--summary")
    outcome = evaluate(path, *flags, "--keep-frames", "--under", "guidance=2")
    assert outcome.code == 0, outcome.err
    (written,) = (tmp_path / "evaluation").glob("*.evaluation.json")
    assert f"frames     {written.with_name(read(path).document.name)}.frames/" in outcome.out
    settings = [setting.frames for setting in read_evaluation(written).document.settings]
    assert [kept.ranked_by for kept in settings] == ["psnr", "psnr"]
    assert all(read_frames(written, kept) is not None for kept in settings)
    page = tmp_path / "report.html"
    assert budc("report", path, "--evaluation", written, "--out", page).code == 0
    assert page.read_text().count("data:image/webp") == 2 * sum(len(kept.prompts) for kept in settings)
    assert "<h4>guidance=2</h4>" in page.read_text()
    # The same evaluation without them.
    assert evaluate(path, *flags).code == 0
    assert read_evaluation(written).document.settings[0].frames is None


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
        (("--no-frames", "--metric-weights", "."), "--no-frames: --metric-weights needs frames"),
        (("--no-frames", "--keep-frames"), "--no-frames: --keep-frames needs frames"),
        (("--metric-weights", "nowhere"), "--metric-weights: nowhere is no folder"),
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


def test_a_signed_evaluation_lies_beside_the_policy_and_is_what_verify_and_run_require(
    budc, evaluate, compiled, flux_profile, flux_folder, tmp_path, monkeypatch
):
    """A third party attests to a policy that is not theirs."""
    path = tmp_path / "policy.budc.json"
    path.write_bytes(compiled(flux_profile).read_bytes())
    for name in ("release", "lab"):
        assert budc("keygen", "--out", tmp_path / name).code == 0
    assert budc("sign", path, "--key", tmp_path / "release.key").code == 0
    flags = ("--metrics", "psnr", "--against", "none", "--repeats", "0", "--samples", "2")
    trusted = ("--trust", tmp_path / "release.pub")
    outcome = evaluate(path, *flags, *trusted, "--key", tmp_path / "lab.key", "--summary")
    assert outcome.code == 0, outcome.err
    written = tmp_path / "policy.evaluation.json"
    evaluation = read_evaluation(written)
    assert evaluation.document.policy == read(path).policy_id
    assert evaluation.digest in outcome.out
    assert all(method.samples == {} for method in evaluation.document.settings[0].methods)
    assert list((tmp_path / "evaluation").glob("*.json")) == []

    # Nobody is trusted as an evaluator yet.
    outcome = budc("verify", path, *trusted)
    assert outcome.code == 0
    assert "policy.evaluation.json is not believed: it is signed by sha256:" in outcome.out
    refused = budc("verify", path, *trusted, "--require-evaluation", "n>=2")
    assert (refused.code, "budc trust add PUB --role evaluator" in refused.err) == (2, True)

    monkeypatch.setenv("BUDC_TRUST", str(tmp_path / "trust.toml"))
    assert budc("trust", "add", tmp_path / "release.pub").code == 0
    assert budc("trust", "require", "--evaluation", "n>=2").code == 2
    assert budc("trust", "add", tmp_path / "lab.pub", "--role", "evaluator").code == 0
    measured = evaluation.document.settings[0].methods[0].metric("psnr")
    outcome = budc("verify", path)
    assert "policy.evaluation.json by lab: latent-mse " in outcome.out
    assert f"PSNR {measured.mean:.4g} (worst {measured.worst:.4g}); 2 prompts on cpu" in outcome.out
    (record,) = budc("verify", path, "--json").record["evaluations"]
    assert (record["believed"], record["metrics"]["psnr"]["mean"]) == (True, measured.mean)

    good, better = f"psnr>={measured.mean - 1},n>=2", f"psnr>={measured.mean + 1}"
    outcome = budc("verify", path, "--require-evaluation", good)
    assert (outcome.code, "ok  required" in outcome.out) == (0, True)
    refused = budc("verify", path, "--require-evaluation", better)
    assert refused.code == 43
    assert f"policy.evaluation.json: psnr is {measured.mean:.6g}, and psnr>=" in refused.err
    run = ("run", path, "--prompt", "x", "--out", tmp_path / "x.png", "--weights", flux_folder)
    assert budc(*run, "--require-evaluation", better).code == 43
    assert budc("trust", "require", "--evaluation", better).code == 0
    assert budc(*run).code == budc("verify", path).code == 43
    # Whoever evaluates a policy need not have an evaluation of it.
    assert evaluate(path, *flags).code == 0
    assert budc("trust", "remove", "lab").code == 2
    assert budc("trust", "require", "--evaluation", good).code == 0
    assert budc("verify", path).code == 0
    assert json.dumps(budc("trust", "list", "--json").record["requiredEvaluation"]).startswith('["psnr>=')
    assert budc("trust", "deny", written).code == 0
    assert "the trust file denies sha256:" in budc("verify", path).err
    assert budc("trust", "require", "--no-evaluation").code == 0
    assert budc("trust", "remove", "lab").code == budc("verify", path).code == 0


def test_an_evaluation_is_signed_and_shown_later(budc, evaluate, compiled, flux_profile, tmp_path):
    path = compiled(flux_profile)
    assert evaluate(path, "--no-frames", "--against", "none", "--repeats", "0", "--samples", "2").code == 0
    (written,) = (tmp_path / "evaluation").glob("*.evaluation.json")
    page = budc("inspect", written)
    assert page.code == 0
    assert "nobody; `budc sign FILE --key KEY` signs it" in page.out
    assert "not verified here" in page.out
    plain = budc("inspect", written, "--json").record
    assert budc("keygen", "--out", tmp_path / "lab").code == 0
    assert budc("sign", written, "--key", tmp_path / "lab.key").code == 0
    record = budc("inspect", written, "--json").record
    assert (record["verified"], record["signed"], plain["signed"]) == (False, True, False)
    assert (record["document"], record["evaluation"]) == (plain["document"], plain["evaluation"])
    outcome = budc("verify", written, "--trust", tmp_path / "lab.pub")
    assert (outcome.code, "budc inspect" in outcome.err) == (24, True)


def test_where_a_signed_evaluation_will_lie_is_checked_first(
    budc, evaluate, compiled, flux_profile, tmp_path
):
    path = tmp_path / "policy.budc.json"
    path.write_bytes(compiled(flux_profile).read_bytes())
    assert budc("keygen", "--out", tmp_path / "lab").code == 0
    identity = load_public(tmp_path / "lab.pub").fingerprint.removeprefix("sha256:")[:8]
    for name in ("policy.evaluation.json", f"policy.{identity}.evaluation.json"):
        (tmp_path / name).mkdir()
    outcome = evaluate(path, "--key", tmp_path / "lab.key")
    assert outcome.code == 61
    assert "a signed evaluation is written beside the policy" in outcome.err
    assert list((tmp_path / "evaluation").iterdir()) == []
    outcome = evaluate(path, "--public", tmp_path / "lab.pub")
    assert (outcome.code, "--public: it is the public half of --key" in outcome.err) == (2, True)


def test_a_metric_with_weights_is_measured_where_they_are(
    evaluate, compiled, flux_profile, tmp_path, monkeypatch
):
    from budc.compiler.metrics import METRICS, FrameMetric, MetricKind

    def load(weights, device):
        assert weights == tmp_path / "weights" / "judge"
        return FrameMetric(lambda frames, reference, prompt: float(len(prompt)))

    monkeypatch.setitem(METRICS, "judge", MetricKind("judge", "Judge", load, weights="model.safetensors"))
    path = compiled(flux_profile)
    flags = ("--metrics", "judge", "--against", "none", "--repeats", "0", "--json")
    (document,) = evaluate(path, *flags).record
    (note,) = document["notMeasured"]
    assert note["name"] == "judge"
    assert "--metric-weights DIR with model.safetensors in judge/" in note["reason"]
    (tmp_path / "weights" / "judge").mkdir(parents=True)
    (tmp_path / "weights" / "judge" / "model.safetensors").write_bytes(b"weights")
    (document,) = evaluate(path, *flags, "--metric-weights", tmp_path / "weights").record
    assert "notMeasured" not in document
    assert document["metricWeights"]["judge"].startswith("sha256:")
    assert [metric["name"] for metric in document["settings"][0]["methods"][0]["metrics"]] == [
        "latent-mse",
        "judge",
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_policy_with_adapters_is_measured_with_them_and_under_others(
    evaluate, compiled, flux_profile, flux_folder, tmp_path
):
    from diffusers import FluxTransformer2DModel

    transformer = FluxTransformer2DModel.from_pretrained(flux_folder, subfolder="transformer")
    style = write_lora(tmp_path / "style.safetensors", transformer)
    other = write_lora(tmp_path / "other.safetensors", transformer, seed=1)
    given = ("--lora", f"{style}:0.5")
    path = compiled(flux_profile, *given)
    flags = (path, "--no-frames", "--repeats", "0", "--against", "none")
    unders = ("lora=" + str(other), f"lora={style}:0.2", "guidance=2", "scheduler=dpm")
    outcome = evaluate(*flags, *given, *(text for under in unders for text in ("--under", under)), "--json")
    assert outcome.code == 0, outcome.err
    means = {
        item["name"]: {method["name"]: method["metrics"][0]["mean"] for method in item["methods"]}
        for item in outcome.record[0]["settings"]
    }
    assert list(means) == ["calibrated", *unders]
    assert means["calibrated"]["policy"] == read(path).document.quality.metrics[0].mean
    assert all(mean["full"] == 0 < mean["policy"] for mean in means.values())
    assert len({mean["policy"] for mean in means.values()}) == 5
    for refused, code, said in (
        ((), 2, "--lora: the policy was calibrated with style at scale 0.5"),
        (("--lora", f"{other}:0.5"), 41, "which is none of those given"),
    ):
        outcome = evaluate(*flags, *refused)
        assert (outcome.code, said in outcome.err) == (code, True), outcome.err


@pytest.mark.slow
def test_guidance_and_a_negative_prompt_of_a_wan_change_every_method(budc, wan_folder, tmp_path):
    path, model = tmp_path / "policy.budc.json", ("--weights", wan_folder)
    size = ("--height", "32", "--width", "32", "--frames", "5", "--held-out-size", "2")
    outcome = budc(
        *("compile", "--model", "wan2.1-nano", *model, "--steps", "4", "--mask", "#.#.", *size),
        *("--calibration-size", "2", "--no-frames", "--out", path),
    )
    assert outcome.code == 0, outcome.err
    unders = ("guidance=2", "negative=a red box", "negative=", "scheduler=euler", "frames=1", "size=32x48")
    outcome = budc(
        *("evaluate", path, "--allow-unsigned", *model, "--out", tmp_path, "--samples", "2", "--no-frames"),
        *("--repeats", "0", "--json", *(text for under in unders for text in ("--under", under))),
    )
    assert outcome.code == 0, outcome.err
    settings = outcome.record[0]["settings"]
    assert [item["name"] for item in settings] == ["calibrated", *unders]
    means = [
        {method["name"]: method["metrics"][0]["mean"] for method in item["methods"]} for item in settings
    ]
    assert all(mean["full"] == 0 < mean["policy"] for mean in means)
    # Nothing but an empty negative prompt may be what the model is deployed with.
    assert len({mean["policy"] for mean in means}) >= 6
    prompts = {item["name"]: item["prompts"]["digest"] for item in settings}
    assert prompts["negative=a red box"] not in (prompts["calibrated"], prompts["guidance=2"])
    assert prompts["guidance=2"] == prompts["calibrated"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_change_under_which_denoisers_take_over_at_other_steps_is_refused(
    budc, pair_profile, pair_folder, tmp_path
):
    path, model = tmp_path / "pair.budc.json", ("--weights", pair_folder)
    made = budc(
        *("compile", "--model", pair_profile, "--steps", "5", "--mask", "#.##.", *model, "--out", path),
        "--no-frames",
    )
    assert made.code == 0, made.err
    given = ("evaluate", path, "--allow-unsigned", *model, "--out", tmp_path, "--repeats", "0", "--no-frames")
    outcome = budc(*given, "--against", "none", "--under", "scheduler=dpm", "--under", "guidance=2")
    assert outcome.code == 0, outcome.err
    outcome = budc(*given, "--under", "scheduler=euler")
    assert outcome.code == 41
    said = (
        "--under: scheduler=euler: denoisers take over at step 2 there, and at step 3 where the policies were"
    )
    assert said in outcome.err
    assert "compile a policy for that setting" in outcome.err
