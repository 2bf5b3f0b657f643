"""What may be required of an evaluation, and what meets it."""

from collections.abc import Callable
from typing import Any

import pytest

from budc.compiler.metrics import METRICS
from budc.schema.bounds import Bound, in_words, parse_bounds, unmet
from budc.schema.errors import UsageError
from budc.schema.report_names import HIGHER_IS_BETTER, METRIC_TITLES

MakeDocument = Callable[..., Any]


def test_bounds_are_a_list_of_figures_signs_and_numbers() -> None:
    assert parse_bounds(" psnr >= 30, psnr.worst>25.5 ,latent-mse<=1e-3,hpsv2.1.worst>=0.2,n>=32", "x") == (
        Bound("psnr", ">=", 30),
        Bound("psnr.worst", ">", 25.5),
        Bound("latent-mse", "<=", 0.001),
        Bound("hpsv2.1.worst", ">=", 0.2),
        Bound("n", ">=", 32),
    )


@pytest.mark.parametrize(
    ("text", "said", "remedy"),
    [
        ("", "'' is not METRIC>=NUMBER", "psnr>=30"),
        ("psnr>=30,", "'' is not METRIC>=NUMBER", "psnr>=30"),
        ("psnr=30", "'psnr=30' is not METRIC>=NUMBER", "psnr>=30"),
        ("psnr", "'psnr' is not METRIC>=NUMBER", "psnr>=30"),
        (">=30", "is not METRIC>=NUMBER", "psnr>=30"),
        ("psnr>=30 dB", "is not METRIC>=NUMBER", "psnr>=30"),
        ("psnr>=nan", "'nan' is no number", "psnr>=30"),
        ("psnr>=inf", "'inf' is no number", "psnr>=30"),
        ("psnr>=1e999", "'1e999' is no number", "psnr>=30"),
        ("psnr>=1_0", "'1_0' is no number", "psnr>=30"),
        ("psnr>=" + "9" * 5000, "is no number", "psnr>=30"),
        ("PSNR>=30", "no metric named 'PSNR'", "did you mean psnr?"),
        ("ssmi>=0.9", "no metric named 'ssmi'", "did you mean ssim?"),
        ("beauty>=1", "no metric named 'beauty'", "or n for the number of prompts"),
        ("psnr.best>=30", "no metric named 'psnr.best'", "did you mean psnr?"),
        ("psnr<=30", "higher PSNR is better", "psnr>=30"),
        ("latent-mse.worst>0.1", "lower latent-mse is better", "latent-mse.worst<0.1"),
        ("n<=32", "n is the number of prompts", "n>=32"),
        ("n>=1.5", "n is the number of prompts", "n>=32"),
        ("n>=0", "n is the number of prompts", "n>=32"),
        ("n.worst>=3", "n is the number of prompts", "n>=32"),
        ("psnr>=30,ssim>=0.9,psnr>=31", "PSNR is bounded twice", "one bound"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(text: str, said: str, remedy: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_bounds(text, "--require-evaluation")
    assert str(refused.value).startswith("--require-evaluation: ")
    assert said in str(refused.value)
    assert remedy in refused.value.remedy


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("psnr>=31", None),
        ("psnr>31", "PSNR is 31, and PSNR > 31 is required"),
        ("psnr>=30,psnr.worst>=28,n>=4,latent-mse<=0.01", "n is 1, and n >= 4 is required"),
        ("psnr.worst>=28,n>=4", None),
        ("psnr.worst>28", "worst PSNR is 28, and worst PSNR > 28 is required"),
        ("psnr>=30,n>=5", "n is 4, and n >= 5 is required"),
        ("latent-mse<0.01", "latent-mse is 0.01, and latent-mse < 0.01 is required"),
        ("ssim>=0.9", "it has no SSIM, of which SSIM >= 0.9 is required"),
    ],
)
def test_an_evaluation_meets_all_bounds_or_says_which_not(
    make_document: MakeDocument, make_evaluation: MakeDocument, text: str, reason: str | None
) -> None:
    assert unmet(parse_bounds(text, "x"), make_evaluation(make_document())) == reason


def test_only_the_calibrated_setting_counts(
    make_document: MakeDocument, make_evaluation: MakeDocument
) -> None:
    evaluation = make_evaluation(make_document())
    other = make_evaluation(make_document(), settings=evaluation.settings[1:])
    assert (
        unmet(parse_bounds("n>=1", "x"), other) == "it has no figures of the policy in the calibrated setting"
    )


def test_every_metric_that_is_measured_has_its_direction_and_its_title() -> None:
    for kind in METRICS.values():
        assert HIGHER_IS_BETTER[kind.name] == kind.higher_is_better
    assert METRIC_TITLES.keys() == HIGHER_IS_BETTER.keys() == {"latent-mse", *METRICS}


def test_a_bound_is_quoted_with_the_title_of_its_metric() -> None:
    bounds = parse_bounds("psnr>=30,lpips.worst<0.25,latent-mse<=1e-3,n>=32", "x")
    assert in_words(bounds) == "PSNR >= 30, worst LPIPS < 0.25, latent-mse <= 0.001, n >= 32"
    # As it is written, for files and options.
    assert ",".join(map(str, bounds)) == "psnr>=30,lpips.worst<0.25,latent-mse<=0.001,n>=32"
