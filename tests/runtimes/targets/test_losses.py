"""What is lost where an engine runs a policy that was not made for it."""

import pytest
from msgspec.structs import replace

from budc.runtimes.sampling.rules import fixed_rows
from budc.runtimes.targets.losses import deployed
from budc.runtimes.targets.registry import TARGETS, target_named
from budc.schema.errors import UnsupportedModel, UnsupportedVersion, UsageError
from budc.schema.mask import StepMask
from budc.schema.policy import Expert, FurtherShape, Policy, Target


def kinds(target, document):
    losses = deployed(TARGETS[target], document, "sha256:" + "0" * 64, {}).losses
    return [loss.partition(":")[0] for loss in losses]


@pytest.fixture
def document(make_document):
    """Of four steps and one branch; the third and the fourth reuse trunk residuals unchanged."""
    document = make_document(steps=8, branches=("cond",))
    mask = StepMask.of([step < 2 for step in range(document.sampler.steps)])
    return with_rows(document, "trunk-residual", {"cond": fixed_rows("plain", mask)})


def with_rows(document, payload, rows):
    policy = Policy.of(payload, rows)
    nfe = {name: sum(own.mask) for own in policy.branches for name in own.names}
    budget = replace(document.budget, nfe=max(nfe.values()), branches=nfe)
    return replace(document, policy=policy, budget=budget)


@pytest.mark.parametrize("target", ["diffusers-magcache", "lightx2v"])
def test_plain_reuse_of_the_trunk_residual_loses_nothing(target, document):
    assert kinds(target, document) == []


def test_a_policy_of_the_engine_s_own_rule_loses_nothing(document):
    mask = document.policy.for_branch("cond").step_mask()
    shape = replace(document.shape, dtype="bfloat16")
    own = with_rows(replace(document, shape=shape), "trunk-output", {"cond": fixed_rows("linear", mask)})
    assert kinds("sglang-dpcache", own) == []
    assert kinds("sglang-dpcache", replace(document, shape=shape)) == ["payload", "coefficients"]


def test_another_span_of_blocks_is_lost_both_ways(document):
    assert kinds("cache-dit", document) == ["blocks"]
    made_for_it = replace(document, target=Target(name="cache-dit"))
    assert kinds("cache-dit", made_for_it) == []
    assert kinds("diffusers-magcache", made_for_it) == ["blocks"]
    with pytest.raises(UnsupportedVersion, match="made for another-engine, which this release does not know"):
        kinds("cache-dit", replace(document, target=Target(name="another-engine")))


def test_coefficients_and_payload_are_lost_by_name(document):
    rows = [list(row) for row in document.policy.for_branch("cond").predictor]
    fitted = [[0.9] if row else [] for row in rows]
    assert kinds("diffusers-magcache", with_rows(document, "velocity", {"cond": fitted})) == [
        "payload",
        "coefficients",
    ]


def test_leading_steps_are_computed_beside_the_mask(document):
    steps = document.sampler.steps
    early = StepMask.of([step != 1 for step in range(steps)])
    document = with_rows(
        replace(document, shape=replace(document.shape, dtype="bfloat16")),
        "trunk-output",
        {"cond": fixed_rows("linear", early)},
    )
    deployment = deployed(TARGETS["sglang-dpcache"], document, "sha256:" + "0" * 64, {})
    assert deployment.mask.nfe == steps
    assert deployment.losses == (
        "mask: SGLang's DPCache computes the steps 0, 1 in every run: 1 evaluations more",
    )


def test_masks_of_two_branches_are_joined_where_the_engine_has_one(make_document):
    document = make_document(steps=8)
    steps = document.sampler.steps
    cond = StepMask.of([step % 2 == 0 for step in range(steps)])
    uncond = StepMask.of([step == 0 for step in range(steps)])
    document = with_rows(
        document,
        "trunk-residual",
        {"cond": fixed_rows("plain", cond), "uncond": fixed_rows("plain", uncond)},
    )
    assert kinds("lightx2v", document) == []
    assert kinds("diffusers-magcache", document) == ["masks"]
    deployment = deployed(TARGETS["diffusers-magcache"], document, "sha256:" + "0" * 64, {})
    assert deployment.masks == {"cond": cond, "uncond": cond}


def test_an_engine_without_masks_computes_every_step(document):
    assert kinds("sd.cpp", document) == ["mask"]


def test_further_sizes_are_lost_where_the_file_is_for_one(document):
    shape = FurtherShape(frames=1, height=16, width=16, quality=document.quality)
    several = replace(document, further_shapes=[shape])
    assert kinds("lightx2v", several) == ["sizes"]
    assert kinds("diffusers-magcache", several) == []


def test_trained_sigmas_are_lost_where_the_engine_makes_its_own(document):
    aligned = replace(document, search=replace(document.search, settings={"aligned": True}))
    assert kinds("diffusers-magcache", aligned) == ["sigmas"]
    assert kinds("sd.cpp", aligned) == ["mask"]


def test_what_the_engine_does_not_run_is_refused(document):
    with pytest.raises(UnsupportedModel, match="is for float32, sglang-dpcache runs bfloat16"):
        kinds("sglang-dpcache", replace(document, shape=replace(document.shape, dtype="float32")))
    flux = replace(document.model, denoisers=[replace(document.model.denoisers[0], class_name="Flux")])
    with pytest.raises(UnsupportedModel, match="is for a Flux, lightx2v runs WanTransformer3DModel"):
        kinds("lightx2v", replace(document, model=flux))
    expert = Expert(denoiser="transformer_2", first_step=2, guidance=3.0)
    with pytest.raises(UnsupportedModel, match="denoisers, diffusers-magcache is written for one"):
        kinds("diffusers-magcache", replace(document, sampler=replace(document.sampler, experts=[expert])))


def test_an_unknown_target_names_the_nearest():
    with pytest.raises(UsageError, match="no target named 'sglang'") as caught:
        target_named("sglang")
    assert caught.value.remedy.startswith("--to sglang-dpcache")
    with pytest.raises(UsageError) as caught:
        target_named("zzz")
    assert caught.value.remedy == f"use one of {', '.join(TARGETS)}"
