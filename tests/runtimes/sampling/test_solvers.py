"""Solvers in numpy against the schedulers of diffusers, step by step."""

from typing import Any

import msgspec
import numpy as np
import pytest

from budc.runtimes.sampling.solvers import Scheduler, solver_matrices
from budc.runtimes.sampling.solvers.schedules import plain_schedule
from budc.schema import canonical
from budc.schema.errors import UnsupportedModel
from budc.schema.policy import SamplerBinding

torch = pytest.importorskip("torch")

from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler  # noqa: E402

from budc.runtimes.sampling.families import FAMILIES  # noqa: E402
from budc.runtimes.sampling.schedulers import apply_schedule, sampler_binding  # noqa: E402

SHAPE = (1, 16, 3, 8, 8)


def unipc(**options: Any) -> Any:
    settings = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 5.0}
    return UniPCMultistepScheduler(**(settings | options))


def bind(scheduler: Any, steps: int, **options: Any) -> SamplerBinding:
    family = FAMILIES["WanTransformer3DModel"]
    return sampler_binding(scheduler, steps, 5.0, family=family, guidance_rule="none", **options)


def altered(sampler: SamplerBinding, **config: Any) -> SamplerBinding:
    config = {**sampler.config, **config}
    return msgspec.structs.replace(sampler, config=config, config_digest=canonical.digest(config))


def largest_difference(scheduler: Any, sampler: SamplerBinding) -> float:
    """Feed both the same latents and velocities at every step; return the worst of all steps, relative."""
    scheduler.set_timesteps(sampler.steps)
    apply_schedule(scheduler, sampler.sigmas, sampler.timesteps)
    scheduler.set_begin_index(0)
    numpy = Scheduler(sampler)
    generator = torch.Generator().manual_seed(0)
    latents, target = torch.randn(2, *SHAPE, generator=generator)
    worst = 0.0
    for step, timestep in enumerate(scheduler.timesteps):
        velocity = torch.sin(2 * latents + step / 10) + target
        expected = scheduler.step(velocity, timestep, latents, return_dict=False)[0]
        actual = numpy.step(velocity.numpy(), latents.numpy())
        assert actual.shape == SHAPE
        assert actual.dtype == np.float32
        worst = max(worst, float(np.abs(actual - expected.numpy()).max() / expected.abs().max()))
        latents = expected
    return worst


@pytest.mark.parametrize("steps", [1, 2, 3, 6, 50])
@pytest.mark.parametrize(
    "scheduler",
    [
        unipc(),
        unipc(solver_order=1),
        unipc(solver_order=3, flow_shift=1.0),
        unipc(disable_corrector=[0, 2]),
        FlowMatchEulerDiscreteScheduler(),
        FlowMatchEulerDiscreteScheduler(shift=3.0),
    ],
    ids=["unipc", "order 1", "order 3", "uncorrected", "euler", "euler shifted"],
)
def test_every_step_is_that_of_diffusers(scheduler: Any, steps: int) -> None:
    assert largest_difference(scheduler, bind(scheduler, steps)) < 1e-6


def test_aligned_sigmas() -> None:
    for scheduler in (unipc(), FlowMatchEulerDiscreteScheduler()):
        sampler = bind(scheduler, 6, sigmas=[0.99, 0.71, 0.6000001, 0.33333334, 0.1, 0.0123, 0.0])
        assert largest_difference(scheduler, sampler) < 1e-6


def test_a_run_can_start_over() -> None:
    sampler = bind(unipc(), 4)
    scheduler, velocity, noise = Scheduler(sampler), np.ones(SHAPE, np.float32), np.ones(SHAPE, np.float32)

    def run(steps: int) -> Any:
        latents = noise
        for _ in range(steps):
            latents = scheduler.step(velocity * latents, latents)
        return latents

    expected = run(4)
    for started in (0, 1, 3):
        scheduler.begin_run()
        run(started)
        scheduler.begin_run()
        np.testing.assert_array_equal(run(4), expected)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("prediction_type", "epsilon"),
        ("use_flow_sigmas", False),
        ("predict_x0", False),
        ("solver_order", 4),
        ("solver_type", "bh1"),
        ("solver_p", "DDIMScheduler"),
        ("lower_order_final", False),
        ("thresholding", True),
        ("use_karras_sigmas", True),
        ("a_later_setting", 1),
    ],
)
def test_what_unipc_does_not_implement_is_refused_by_name(setting: str, value: Any) -> None:
    with pytest.raises(UnsupportedModel, match=rf"UniPCMultistepScheduler\.{setting} is "):
        solver_matrices(altered(bind(unipc(), 4), **{setting: value}))


def test_what_euler_does_not_implement_is_refused_by_name() -> None:
    sampler = bind(FlowMatchEulerDiscreteScheduler(), 4)
    with pytest.raises(UnsupportedModel, match=r"stochastic_sampling is True, only False"):
        solver_matrices(altered(sampler, stochastic_sampling=True))


def test_settings_of_the_schedule_do_not_matter() -> None:
    sampler = bind(unipc(), 4)
    other = altered(sampler, flow_shift=1.0, timestep_spacing="trailing")
    np.testing.assert_array_equal(solver_matrices(sampler), solver_matrices(other))


def test_another_scheduler_is_refused_by_name() -> None:
    sampler = msgspec.structs.replace(bind(unipc(), 4), scheduler="DDIMScheduler")
    with pytest.raises(UnsupportedModel, match="DDIMScheduler has no solver without diffusers"):
        solver_matrices(sampler)


def test_unipc_cannot_start_at_pure_noise() -> None:
    with pytest.raises(UnsupportedModel, match=r"sigmas\[0\] = 1"):
        solver_matrices(bind(unipc(), 2, sigmas=[1.0, 0.5, 0.0]))


DYNAMIC = {"use_dynamic_shifting": True, "max_image_seq_len": 8192, "max_shift": 0.9}


@pytest.mark.parametrize("steps", [1, 2, 7, 50])
@pytest.mark.parametrize(
    ("scheduler", "family"),
    [
        (unipc(), "WanTransformer3DModel"),
        (unipc(flow_shift=1.0, final_sigmas_type="sigma_min"), "WanTransformer3DModel"),
        (FlowMatchEulerDiscreteScheduler(shift=3.0), "WanTransformer3DModel"),
        (FlowMatchEulerDiscreteScheduler(shift=3.0), "ZImageTransformer2DModel"),
        (FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), "FluxTransformer2DModel"),
        (FlowMatchEulerDiscreteScheduler(**DYNAMIC, shift_terminal=0.02), "QwenImageTransformer2DModel"),
        (FlowMatchEulerDiscreteScheduler(**DYNAMIC, time_shift_type="linear"), "FluxTransformer2DModel"),
    ],
)
def test_plain_schedules_are_those_of_diffusers(scheduler: Any, family: str, steps: int) -> None:
    if scheduler.config.get("shift_terminal") and steps == 1:
        pytest.skip("a single noise level of 1 cannot be stretched")
    known = {"family": FAMILIES[family], "image_tokens": 1024}
    expected = sampler_binding(scheduler, steps, 5.0, guidance_rule="none", **known)
    # Its own sigmas are not looked at.
    other = sampler_binding(
        scheduler, 5, 5.0, guidance_rule="none", sigmas=[0.9, 0.7, 0.5, 0.3, 0.1, 0], **known
    )
    sigmas, timesteps = plain_schedule(other, steps, **known)
    assert sigmas == pytest.approx(expected.sigmas, abs=2e-7)
    assert timesteps == pytest.approx(expected.timesteps, abs=2e-4)


def test_a_schedule_that_is_not_known_is_refused_by_name() -> None:
    sampler = bind(FlowMatchEulerDiscreteScheduler(), 4)
    family = FAMILIES["WanTransformer3DModel"]
    with pytest.raises(UnsupportedModel, match="use_karras_sigmas = True"):
        plain_schedule(altered(sampler, use_karras_sigmas=True), 4, family)
    with pytest.raises(UnsupportedModel, match="DDIMScheduler has no schedule"):
        plain_schedule(msgspec.structs.replace(sampler, scheduler="DDIMScheduler"), 4, family)
    with pytest.raises(UnsupportedModel, match="use_flow_sigmas"):
        plain_schedule(altered(bind(unipc(), 4), use_flow_sigmas=False), 4, family)
    with pytest.raises(UnsupportedModel, match="by resolution"):
        plain_schedule(altered(sampler, use_dynamic_shifting=True), 4, family)
