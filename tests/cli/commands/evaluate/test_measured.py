"""What `budc evaluate` measures, beside what the policy's own report says."""

import msgspec
import pytest

pytest.importorskip("torch")

from evaluation_rows import mean, methods

from budc.compiler.training import schedule_alignment, second_stage
from budc.schema.artifact import read
from budc.schema.attestation import read_evaluation
from budc.schema.evaluation import EvaluationDocument
from budc.schema.frame_files import read_frames

RIGID = ("policy", "fewer-steps", "taylorseer-1", "dpcache", "lemica", "meancache", "dpcache-linear")
"""Methods that take the same evaluations for each sample."""


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


def test_a_metric_with_weights_is_measured_where_they_are(
    evaluate, compiled, flux_profile, tmp_path, monkeypatch
):
    from budc.compiler.metrics import METRICS, FrameMetric, MetricKind

    def load(weights, device):
        assert weights == tmp_path / "weights" / "judge"
        return FrameMetric(lambda frames, reference, prompt: float(len(prompt)))

    monkeypatch.setitem(METRICS, "judge", MetricKind("judge", load, weights="model.safetensors"))
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
