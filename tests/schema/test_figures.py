"""Figures that no measurement can give, each with the words that say why, and unusual ones that one can."""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from budc.schema.errors import SemanticsViolation
from budc.schema.figures import check_figures
from budc.schema.policy import Baseline, Metric, PolicyDocument

ERROR = Metric(
    name="latent-mse", mean=0.1, standard_error=0.01, worst=0.4, geometric_mean=0.08, p95=0.3, samples=128
)
PSNR = Metric(name="psnr", unit="dB", mean=30, standard_error=0.5, worst=17, samples=128)
OTHER = replace(PSNR, name="clip-score", p95=20)


@pytest.fixture
def report(make_document: Callable[..., PolicyDocument]) -> Callable[..., PolicyDocument]:
    """A document of NFE 3 whose report holds one metric, and further fields."""

    def make(metric: Metric, **fields: Any) -> PolicyDocument:
        document = make_document()
        return replace(document, quality=replace(document.quality, metrics=[metric], **fields))

    return make


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        (replace(ERROR, samples=129), "129 samples of 128"),
        (replace(ERROR, mean=-0.1), "negative"),
        (replace(ERROR, p95=-0.1), "negative"),
        (replace(ERROR, worst=-0.1), "negative"),
        (replace(ERROR, worst=0.09), "worst is 0.09"),
        (replace(ERROR, p95=0.5), "worst is 0.4"),
        (replace(PSNR, worst=31), "worst is 31"),
        (replace(PSNR, p95=16), "worst is 17"),
        (replace(OTHER, p95=16), "worst is 17"),
        (replace(ERROR, geometric_mean=0.11), "geometricMean is 0.11"),
        (replace(ERROR, geometric_mean=-1e-9), "geometricMean"),
    ],
)
def test_impossible_metrics_are_refused(report: Any, metric: Metric, words: str) -> None:
    with pytest.raises(SemanticsViolation, match=words):
        check_figures(report(metric))
    with pytest.raises(SemanticsViolation, match=rf"baselines\[0\]\.metrics\[1\] .*{words}"):
        check_figures(report(ERROR, baselines=[Baseline(name="uniform", nfe=3, metrics=[PSNR, metric])]))


@pytest.mark.parametrize(
    ("full", "words"),
    [
        (Baseline(name="full", nfe=2, metrics=[]), "2 evaluations, fewer than the budget of 3"),
        (Baseline(name="full", nfe=6, metrics=[ERROR]), "differs from itself by 0.4"),
    ],
)
def test_a_full_run_that_is_none_is_refused(report: Any, full: Baseline, words: str) -> None:
    with pytest.raises(SemanticsViolation, match=words):
        check_figures(report(ERROR, baselines=[full]))


@pytest.mark.parametrize(
    "metric",
    [
        ERROR,
        PSNR,
        OTHER,
        replace(OTHER, worst=41, p95=40),
        replace(PSNR, mean=-3, worst=-5),
        # Equal values, their mean rounded up.
        replace(ERROR, mean=0.30000000000000004, worst=0.3, p95=0.3, geometric_mean=0.3000000000000001),
        replace(ERROR, mean=0, worst=0, p95=0, geometric_mean=0, standard_error=0),
    ],
)
def test_what_a_measurement_can_give_is_accepted(report: Any, metric: Metric) -> None:
    nothing = replace(ERROR, mean=0, worst=0, p95=0, geometric_mean=0, standard_error=0)
    check_figures(report(metric, baselines=[Baseline(name="full", nfe=3, metrics=[nothing])]))
