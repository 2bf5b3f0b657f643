"""Compiles for another engine: a budget for a time or a quality, a few plain steps, and several sizes."""

import pytest

pytest.importorskip("torch")

from budc.compiler.compile import compile_artifacts
from budc.compiler.compile_budget import CompileBudget
from budc.compiler.policy_source import make_request
from budc.compiler.selection import arbitration
from budc.runtimes.targets.losses import deployed
from budc.runtimes.targets.openvino_genai import periodic_masks
from budc.runtimes.targets.registry import TARGETS
from budc.schema.evaluation import Latency


@pytest.fixture
def compile_(eight_prompts):
    """Compile for an engine, check that nothing is lost there, and return the artifact's document."""

    def run(engine, **asked):
        flags = eight_prompts | {"engine": engine, "no_frames": True} | asked
        (artifact,) = compile_artifacts(make_request({}, flags).resolve())
        deployment = deployed(TARGETS[engine], artifact.document, artifact.policy_id, {}, ".yaml")
        assert deployment.losses == ()
        assert TARGETS[engine].write(deployment).text
        return artifact.document

    return run


@pytest.mark.parametrize(
    ("engine", "recorded"), [("openvino-genai", ("velocity", 0)), ("cache-dit", ("trunk-residual", 1))]
)
def test_a_time_is_that_of_what_the_engine_reuses(compile_, monkeypatch, engine, recorded):
    times = {}

    def timed(_, payload, first_blocks, nfe):
        times[nfe] = payload, first_blocks
        return Latency(median=0.5 * nfe, fastest=0.4 * nfe, slowest=nfe, repeats=3)

    monkeypatch.setattr(CompileBudget, "_loop_seconds", timed)
    assert compile_(engine, within="1.6s").budget.nfe == 3
    assert set(times.values()) == {recorded}


def test_a_loop_with_blocks_at_every_step_is_timed(compile_):
    assert compile_("cache-dit", within="60s", search="uniform").budget.nfe == 6


def test_a_budget_for_a_quality_has_a_mask_of_the_engine(compile_):
    document = compile_("openvino-genai", quality="latent-mse<=0.02")
    assert document.search.algorithm == "known"
    for branch in document.policy.branches:
        assert branch.step_mask() in periodic_masks(6, document.budget.nfe)


def test_a_few_plain_steps_may_be_the_policy(compile_, monkeypatch):
    few_steps = arbitration.few_steps

    def certain(task, arbiter):
        return [arbitration.Contender(-1e9, contender.result) for contender in few_steps(task, arbiter)]

    monkeypatch.setattr("budc.compiler.selection.judges.few_steps", certain)
    document = compile_("openvino-genai", budget="3", steps="auto")
    assert document.sampler.steps == document.budget.nfe == 3


def test_a_further_size_is_measured_as_the_engine_runs_it(compile_):
    asked = {"mask": "##.#..", "height": None, "width": None, "frames": None}
    document = compile_("cache-dit", **asked, shape=("32x48x5", "32x32x5"))
    alone = compile_("cache-dit", **asked, shape=("32x32x5",))
    (further,) = document.further_shapes
    assert further.quality.metrics == alone.quality.metrics
    assert further.quality.metrics != document.quality.metrics
    assert not further.branches
