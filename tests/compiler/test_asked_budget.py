import pytest

from budc.compiler.asked_budget import parse_quality, parse_seconds, suffix_of
from budc.compiler.policy_source import make_request
from budc.schema.errors import UsageError


@pytest.mark.parametrize(
    ("text", "worst", "bound"),
    [
        ("psnr>=30", False, "psnr>=30"),
        ("psnr >= 30", True, "psnr.worst>=30"),
        ("psnr.worst>25", True, "psnr.worst>25"),
        ("latent-mse<=0.01", False, "latent-mse<=0.01"),
    ],
)
def test_a_quality_is_one_bound(text, worst, bound):
    assert str(parse_quality(text, worst=worst, frames=True)) == bound


@pytest.mark.parametrize(
    ("text", "frames", "message"),
    [
        ("psnr", True, "--quality: 'psnr' is not METRIC>=NUMBER"),
        ("psnr<=30", True, "higher PSNR is better"),
        ("psnr>=30,latent-mse<=1", True, "is several bounds"),
        ("ssim>=0.9", True, "SSIM is not measured while"),
        ("n>=3", True, "n is not measured while"),
        ("psnr>=30", False, "--no-frames leaves no PSNR"),
    ],
)
def test_what_is_no_quality_is_refused(text, frames, message):
    with pytest.raises(UsageError, match=message):
        parse_quality(text, worst=False, frames=frames)


def test_seconds():
    assert [parse_seconds(text) for text in ("2.0s", "800ms", "2", " 1.5 s")] == [2, 0.8, 2, 1.5]
    for text in ("0s", "fast", "-1s", "1m", "", "inf"):
        with pytest.raises(UsageError, match=r"--within: .* is no length of time"):
            parse_seconds(text)


def test_names_say_what_was_asked_for():
    assert suffix_of(parse_quality("psnr>=30", worst=True, frames=True), None) == "psnr.worst30"
    assert suffix_of(parse_quality("latent-mse<=1e-05", worst=False, frames=True), None) == "latent-mse1e-05"
    assert suffix_of(None, 0.8) == "within0.8s"
    assert suffix_of(None, None) is None


def test_what_was_asked_for_is_kept_with_what_worst_says():
    for worst, asked in ((False, "psnr>=30"), (True, "psnr.worst>=30")):
        flags = {"model": "wan2.1-nano", "quality": "psnr >= 30", "worst": worst}
        (policy,) = make_request({}, flags).resolve().policies
        assert policy.budget == asked


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"budget": "2", "quality": "psnr>=30"}, "both --budget and --quality given"),
        ({"quality": "psnr>=30", "within": "2s"}, "both --quality and --within given"),
        ({"mask": "0", "within": "2s"}, "--within 2s: the mask that is given decides this"),
        ({"budget": "2", "worst": True}, "--worst: says of which prompt --quality is"),
        ({"quality": "psnr>=30", "search": "uniform"}, "--quality: --search uniform leaves no prompts"),
    ],
)
def test_what_does_not_go_together_is_refused(flags, message):
    with pytest.raises(UsageError, match=message):
        make_request({}, {"model": "wan2.1-nano", **flags}).resolve()
