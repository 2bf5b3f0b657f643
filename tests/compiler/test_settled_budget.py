"""The smallest budget for a quality, the largest within a time."""

import json
import math

import pytest

torch = pytest.importorskip("torch")

from budc.cli.output.compiled import page, record  # noqa: E402
from budc.compiler.compile import compile_artifacts, compile_measured  # noqa: E402
from budc.compiler.compile_budget import CompileBudget  # noqa: E402
from budc.compiler.policy_source import make_request  # noqa: E402
from budc.compiler.settled_budget import Point  # noqa: E402
from budc.schema.bounds import parse_bounds  # noqa: E402
from budc.schema.errors import BudgetImpossible  # noqa: E402
from budc.schema.evaluation import Latency  # noqa: E402


def test_a_bound_holds_with_the_standard_error_or_for_the_worst_prompt():
    (mean,), (worst,), (error,) = (
        parse_bounds(text, "") for text in ("psnr>=30", "psnr.worst>=30", "latent-mse<=2.5")
    )
    point = Point.of(8, [30.0, 32.0], higher_is_better=True)
    assert point.keeps(mean)
    assert point.keeps(worst)
    point = Point.of(8, [28.0, 32.5], higher_is_better=True)
    assert point.mean > 30
    assert not point.keeps(mean)
    assert not point.keeps(worst)
    assert (
        point.in_words(mean)
        == "8 evaluations: PSNR 30.25 ± 2.2 dB (worst 28) on 2 prompts that judge, bound not kept"
    )
    assert Point.of(8, [1.0, 3.0], higher_is_better=False).keeps(error) is False
    assert Point.of(8, [1.4, 1.6], higher_is_better=False).keeps(error) is True


def test_margins_are_logarithms_of_the_squared_error():
    psnr, worst, error = (
        parse_bounds(text, "")[0] for text in ("psnr>=30", "psnr.worst>=30", "latent-mse<=1")
    )
    point = Point.of(8, [30.0, 50.0], higher_is_better=True)
    # The mean is 40 dB, its standard error 10; ten dB are a factor of ten.
    assert point.margin(psnr) == pytest.approx(0)
    assert Point.of(8, [40.0, 40.0], higher_is_better=True).margin(worst) == pytest.approx(math.log(10))
    assert Point.of(8, [10.0, 10.0], higher_is_better=False).margin(error) == pytest.approx(-math.log(10))
    assert math.isfinite(Point.of(8, [0.0, 0.0], higher_is_better=False).margin(error))


@pytest.fixture
def compile_(eight_prompts):
    """Compile what is asked for; return the artifact's document."""

    def run(**asked):
        (artifact,) = compile_artifacts(make_request({}, eight_prompts | asked).resolve())
        return artifact.document

    return run


def _curve(document):
    settings = document.search.settings
    return [
        str(text)
        for key, text in sorted(settings.items())
        if key.startswith("choice") and "evaluation" in str(text)
    ]


def test_the_smallest_budget_that_keeps_a_quality(compile_):
    document = compile_(quality="latent-mse<=0.02", no_frames=True)
    curve = _curve(document)
    kept = {int(text.split()[0]): not text.endswith("not kept") for text in curve}
    assert document.budget.requested == "latent-mse<=0.02"
    assert document.budget.nfe == min(nfe for nfe in (*kept, 6) if kept.get(nfe, True))
    assert all(not held for nfe, held in kept.items() if nfe < document.budget.nfe)
    alone = compile_(budget=str(document.budget.nfe), no_frames=True)
    assert document.search.forwards > alone.search.forwards
    # Two of eight prompts judge, with the fast effort.
    assert all("on 2 prompts that judge" in text for text in curve)


@pytest.mark.slow
def test_frames_are_decoded_for_psnr(compile_):
    document = compile_(quality="psnr>=1")
    assert document.budget.nfe == 1
    assert any(text.startswith("1 evaluation: PSNR ") for text in _curve(document))


def test_a_quality_that_no_budget_keeps_is_refused_with_the_nearest(compile_):
    with pytest.raises(
        BudgetImpossible, match=r"no budget below the full run of 6 steps keeps .*; 5 evaluations: "
    ):
        compile_(quality="latent-mse<=1e-12", no_frames=True)


@pytest.mark.slow
def test_the_largest_budget_within_a_time(compile_, monkeypatch):
    def timed(_, payload, first_blocks, nfe):
        assert (payload, first_blocks) == ("trunk-residual", 0)
        return Latency(median=0.5 * nfe, fastest=0.4 * nfe, slowest=nfe, repeats=3)

    monkeypatch.setattr(CompileBudget, "_loop_seconds", timed)
    document = compile_(within="1.6s", search="uniform", no_frames=True)
    assert (document.budget.nfe, document.budget.requested) == (3, "1.6s")
    with pytest.raises(BudgetImpossible, match=r"0\.1 s are too few; 1 evaluation: the loop took 0\.5 s"):
        compile_(within="0.1s", search="uniform", no_frames=True)
    assert compile_(within="60s", search="uniform", no_frames=True).budget.nfe == 6


def test_times_are_beside_the_policy_whose_bytes_they_do_not_change(eight_prompts, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1782900000")

    def compiled(slower):
        def timed(*arguments):
            seconds = slower * arguments[-1]
            return Latency(median=seconds, fastest=0.8 * seconds, slowest=2 * seconds, repeats=3)

        monkeypatch.setattr(CompileBudget, "_loop_seconds", timed)
        asked = {"within": "1.6s", "search": "uniform", "no_frames": True, "out": tmp_path / "p.budc.json"}
        (done,) = compile_measured(make_request({}, eight_prompts | asked).resolve())
        return done

    one, other = compiled(0.5), compiled(0.45)
    assert one.artifact.document.budget.nfe == 3
    assert one.artifact.payload == other.artifact.payload
    assert any(text.startswith("4 evaluations: the loop took 2 s (1.6 to 4) on ") for text in one.tried)
    assert not set(one.tried) & set(other.tried)
    shown = " ".join(page(*one).split())
    assert f"tried {' '.join(one.tried)}" in shown
    assert record(*one)["tried"] == list(one.tried)
    assert "the loop took" not in json.dumps(record(*one)["search"])


def test_loops_are_timed(compile_):
    document = compile_(within="60s", search="uniform", no_frames=True)
    assert document.budget.nfe == 6
