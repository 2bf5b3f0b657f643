"""Several policies of one model on a pipeline, and the choice between them."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

torch = pytest.importorskip("torch")

from budc.runtimes.admission.trust import UnsignedWarning  # noqa: E402
from budc.runtimes.diffusers.apply import AppliedPolicy, apply  # noqa: E402
from budc.runtimes.sampling.rules import fixed_rows  # noqa: E402
from budc.schema.errors import CalibrationMismatch, RefusedRun, Unsigned, UsageError  # noqa: E402
from budc.schema.mask import StepMask  # noqa: E402
from budc.schema.policy import NegativePrompt, PolicyDocument  # noqa: E402

ApplyQuietly = Callable[..., AppliedPolicy]
STEPS = 6


@pytest.fixture
def tiers(pipe: Any, compiled_for: Callable[..., PolicyDocument]) -> list[PolicyDocument]:
    """Policies of two, three and four evaluations; the payload of the second is the velocity."""
    documents = []
    for nfe in (2, 3, 4):
        mask = StepMask.uniform(STEPS, nfe)
        payload = "velocity" if nfe == 3 else "trunk-residual"
        document = compiled_for(pipe, mask, fixed_rows("plain", mask), payload=payload)
        documents.append(replace(document, name=f"tier-{nfe}"))
    return documents


def test_each_tier_makes_what_it_makes_alone(
    pipe: Any, run: Any, tiers: list[PolicyDocument], apply_quietly: ApplyQuietly
) -> None:
    alone = {}
    for document in tiers:
        applied_policy = apply_quietly(pipe, document)
        alone[document.budget.nfe] = run(pipe)
        applied_policy.remove()
    full = run(pipe)
    applied_policy = apply_quietly(pipe, tiers)
    assert torch.equal(run(pipe), alone[2])
    for nfe in (3, 4, 2, 3):
        applied_policy.use(nfe=nfe)
        assert applied_policy.document.name == f"tier-{nfe}"
        assert f"{nfe} of 6 steps" in repr(applied_policy)
        assert torch.equal(run(pipe), alone[nfe])
    applied_policy.remove()
    assert torch.equal(run(pipe), full)
    assert len({float(latents.sum()) for latents in (*alone.values(), full)}) == 4


def test_the_choice_takes_less_than_a_millisecond(
    pipe: Any, tiers: list[PolicyDocument], apply_quietly: ApplyQuietly
) -> None:
    applied_policy = apply_quietly(pipe, tiers)
    taken = []
    for nfe in (3, 4, 2) * 5:
        start = time.perf_counter()
        applied_policy.use(nfe=nfe)
        taken.append(time.perf_counter() - start)
    # The best of many: the machine may be busy.
    assert min(taken) < 1e-3


def test_wrong_use_is_refused_and_changes_nothing(
    pipe: Any, run: Any, tiers: list[PolicyDocument], apply_quietly: ApplyQuietly
) -> None:
    applied_policy = apply_quietly(pipe, tiers)
    with pytest.raises(UsageError, match="no policy of 5 evaluations is held") as caught:
        applied_policy.use(nfe=5)
    assert caught.value.remedy == "one of 2, 3, 4"

    def during(pipe: Any, step: int, _timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        if step == 1:
            applied_policy.use(nfe=3)
        return values

    with pytest.raises(RefusedRun, match="a run under the policy tier-2 is under way"):
        run(pipe, callback_on_step_end=during)
    assert applied_policy.document.name == "tier-2"
    applied_policy.use(nfe=4)
    run(pipe)
    applied_policy.remove()
    with pytest.raises(UsageError, match="was removed"):
        applied_policy.use(nfe=2)


def test_the_warning_of_unsigned_policies_is_the_caller_s(pipe: Any, tiers: list[PolicyDocument]) -> None:
    with pytest.warns(UnsignedWarning) as caught:
        apply(pipe, tiers, allow_unsigned=True).remove()
    assert [warning.filename for warning in caught] == [__file__] * 3


def test_policies_that_do_not_belong_together_are_refused(
    wan: Any, compiled_for: Any, apply_quietly: ApplyQuietly
) -> None:
    mask = StepMask.uniform(STEPS, 2)
    document = compiled_for(wan, mask, fixed_rows("plain", mask))
    other = StepMask.uniform(STEPS, 3)
    foreign = compiled_for(wan, other, fixed_rows("plain", other))
    foreign = replace(foreign, name="foreign", model=replace(foreign.model, profile="other"))
    for artifacts, message in (
        ([], "an empty list"),
        ([document, document], "both have 2 evaluations"),
        ([document, foreign], "foreign is for another model"),
    ):
        with pytest.raises(UsageError, match=message):
            apply_quietly(wan, artifacts)


def test_policies_are_replaced_once_all_are_verified(
    pipe: Any, run: Any, tiers: list[PolicyDocument], apply_quietly: ApplyQuietly
) -> None:
    expected = {}
    applied_policy = apply_quietly(pipe, tiers)
    for nfe in (2, 4):
        applied_policy.use(nfe=nfe)
        expected[nfe] = run(pipe)
    applied_policy.remove()
    applied_policy = apply_quietly(pipe, tiers[:2])
    foreign = replace(tiers[2], name="foreign", model=replace(tiers[2].model, profile="other"))
    other_scheduler = replace(tiers[2], sampler=replace(tiers[2].sampler, scheduler="DDIMScheduler"))
    for artifacts, error, message in (
        ([tiers[2], tiers[2]], UsageError, "both have 4 evaluations"),
        ([foreign], UsageError, "foreign is for another model"),
        ([other_scheduler], CalibrationMismatch, "scheduler: the policy was calibrated for DDIMScheduler"),
    ):
        with pytest.warns(UnsignedWarning), pytest.raises(error, match=message):
            applied_policy.replace(artifacts, allow_unsigned=True)
        assert applied_policy.document is tiers[0]
    with pytest.raises(Unsigned, match="no signature"):
        applied_policy.replace(tiers)
    assert torch.equal(run(pipe), expected[2])
    with pytest.warns(UnsignedWarning) as caught:
        applied_policy.replace([tiers[2]], allow_unsigned=True)
    assert [warning.filename for warning in caught] == [__file__]
    assert torch.equal(run(pipe), expected[4])
    assert applied_policy.policies == (tiers[2],)
    with pytest.raises(UsageError, match="no policy of 2 evaluations is held"):
        applied_policy.use(nfe=2)
    applied_policy.remove()


def test_what_a_policy_wants_of_a_call(
    pipe: Any, tiers: list[PolicyDocument], apply_quietly: ApplyQuietly
) -> None:
    document, shape = tiers[0], tiers[0].pipeline().shape
    expected = {"num_inference_steps": STEPS, "height": shape.height, "width": shape.width}
    expected["guidance_scale"] = document.sampler.guidance
    if type(pipe).__name__.startswith("Wan"):
        negative = NegativePrompt(rule="fixed", text="blurred")
        document = replace(document, sampler=replace(document.sampler, negative_prompt=negative))
        expected |= {"num_frames": shape.frames, "negative_prompt": "blurred"}
    assert apply_quietly(pipe, document).call_arguments == expected
