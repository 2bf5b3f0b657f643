"""Dry runs: the counts of searches on made-up losses, beside those that were counted on the embedded models."""

import json
import math
import statistics
from pathlib import Path

import pytest

from budc.compiler.planning.dry_run import dry_run, given_to
from budc.policies.profile import load_profile
from budc.runtimes.targets.registry import target_named
from budc.schema.errors import UsageError

MEASURED = json.loads((Path(__file__).parents[3] / "benchmarks" / "results" / "quality.json").read_text())
STEPS = MEASURED["steps"]


def counted(model: str, nfe: int, method: str) -> list[float]:
    """What searches computed for a prompt and branch beside the reference run, a seed each."""
    profile, prompts = load_profile(model), MEASURED["calibration"]
    return [
        row["searchForwards"] / prompts / len(profile.branches) - STEPS
        for row in MEASURED["rows"]
        if (row["model"], row["budget"], row["method"]) == (model, nfe, method)
    ]


@pytest.mark.parametrize("nfe", [6, 8, 10, 14])
def test_the_paper_s_search_takes_about_what_was_counted(nfe: int) -> None:
    models = ("wan2.1-nano", "wan2.1-mini", "flux-nano")
    logs = [math.log(count) for model in models for count in counted(model, nfe, "paper")]
    planned = dry_run(given_to(load_profile("flux-nano"), nfe, STEPS), "paper")
    assert planned.expected == pytest.approx(math.exp(statistics.fmean(logs)), rel=0.25)
    inside = [planned.least / 1.25 < math.exp(log) < planned.most * 1.25 for log in logs]
    assert sum(inside) >= 0.75 * len(logs)


@pytest.mark.parametrize("nfe", [6, 10])
def test_the_default_search_takes_its_limit_and_more_where_little_is_remembered(nfe: int) -> None:
    profile = load_profile("flux-nano")
    known = dry_run(given_to(profile, nfe, STEPS), "joint")
    assert known.known
    assert dry_run(given_to(profile, nfe, STEPS), "joint", rollouts=0.4).expected == pytest.approx(
        0.4 * known.expected, abs=1
    )
    forgetting = dry_run(given_to(profile, nfe, STEPS), "joint", remembered=nfe)
    assert (forgetting.least, forgetting.most) == (known.expected, pytest.approx(1.3 * known.expected, abs=1))
    assert known.expected < forgetting.expected < forgetting.most
    # Two candidates' prefixes are enough for most of what is shared.
    twice = dry_run(given_to(profile, nfe, STEPS), "joint", remembered=2 * nfe)
    assert known.most < twice.most < forgetting.most


def test_what_is_forgotten_is_computed_again() -> None:
    profile = load_profile("flux-nano")
    for search in ("paper", "hillclimb"):
        plain, forgetting = (
            dry_run(given_to(profile, 8, 28), search, remembered=count) for count in (10**9, 8)
        )
        assert plain.expected < forgetting.expected < 8 * plain.expected
    for search in ("dp", "uniform"):
        assert dry_run(given_to(profile, 8, 28), search, remembered=8) == dry_run(
            given_to(profile, 8, 28), search
        )


def test_a_small_space_is_counted_whole() -> None:
    profile = load_profile("flux-nano")
    # Two payloads; of 4 steps, with the first, 2 are computed: the first alone, then with each of three.
    assert dry_run(given_to(profile, 2, 4), "exhaustive") == (8, 8, 8)
    assert dry_run(given_to(profile, 2, 4), "joint") == (8, 8, 8)


def test_searches_that_cannot_be_are_refused() -> None:
    with pytest.raises(UsageError, match="at most 100,000 are tried"):
        dry_run(given_to(load_profile("flux-nano"), 10, 50), "exhaustive")
    for search in ("known", "nearby"):
        with pytest.raises(UsageError, match=f"--search {search}"):
            dry_run(given_to(load_profile("wan2.2"), 10, 40), search)


def test_a_search_for_an_engine_has_its_masks_payload_and_leading_steps() -> None:
    profile = load_profile("flux-nano")
    # One payload, and two steps that it always computes, which both rollouts share: one of the other two is added.
    sglang = dry_run(given_to(profile, 3, 4, target_named("sglang-dpcache")), "exhaustive")
    assert sglang == (4, 4, 4)
    periodic = target_named("openvino-genai")
    assert periodic.masks is not None
    masks = periodic.masks(12, 5)
    few = dry_run(given_to(profile, 5, 12, periodic), "known")
    assert few.known
    assert 5 <= few.expected <= 5 * len(masks)
