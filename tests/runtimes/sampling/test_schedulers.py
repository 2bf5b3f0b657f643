"""Sampler bindings: the schedule that a pipeline really runs, and its exact return."""

import copy
import math
from typing import Any

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from diffusers import (  # noqa: E402
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    UniPCMultistepScheduler,
)

from budc.runtimes.sampling.families import FAMILIES  # noqa: E402
from budc.runtimes.sampling.scheduler_config import config_differences, relevant_config  # noqa: E402
from budc.runtimes.sampling.schedulers import (  # noqa: E402
    apply_schedule,
    sampler_binding,
    step_index,
)
from budc.schema import canonical  # noqa: E402
from budc.schema.errors import RefusedRun, UnsupportedModel  # noqa: E402
from budc.schema.policy import SamplerBinding  # noqa: E402

WAN, FLUX = FAMILIES["WanTransformer3DModel"], FAMILIES["FluxTransformer2DModel"]


def unipc(**options: Any) -> Any:
    settings = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
    return UniPCMultistepScheduler(**(settings | options))


def bind(scheduler: Any, steps: int = 6, **options: Any) -> SamplerBinding:
    return sampler_binding(scheduler, steps, 5.0, **({"family": WAN, "guidance_rule": "none"} | options))


@pytest.mark.parametrize("family", ["wan", "flux"])
def test_is_what_the_pipeline_runs(family: str, run: Any, request: pytest.FixtureRequest) -> None:
    pipe = request.getfixturevalue(family)
    before = copy.deepcopy(vars(pipe.scheduler))
    binding = bind(pipe.scheduler, family=FAMILIES[type(pipe.transformer).__name__], image_tokens=96)
    assert str(vars(pipe.scheduler)) == str(before)
    run(pipe)
    assert binding.sigmas == pipe.scheduler.sigmas.tolist()
    assert binding.timesteps == pipe.scheduler.timesteps.tolist()
    assert binding.scheduler == type(pipe.scheduler).__name__


def test_shift_by_resolution() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    small, large = (bind(scheduler, family=FLUX, image_tokens=n).sigmas[1] for n in (256, 4096))
    assert small < large
    with pytest.raises(RefusedRun, match="image tokens is not known"):
        bind(scheduler, family=FLUX)


@pytest.mark.parametrize(
    "scheduler",
    [
        unipc(),
        unipc(flow_shift=1.0),
        FlowMatchEulerDiscreteScheduler(shift=3.0),
        FlowMatchEulerDiscreteScheduler(),
    ],
)
def test_survives_json_bit_for_bit(scheduler: Any) -> None:
    aligned = [0.987654321, 0.71, 0.6000001, 0.33333334, 0.1, 0.0123, 0.0]
    for binding in (bind(scheduler), bind(scheduler, sigmas=aligned)):
        read = msgspec.json.decode(canonical.encode(msgspec.to_builtins(binding)), type=SamplerBinding)
        fresh = copy.deepcopy(scheduler)
        fresh.set_timesteps(6)
        apply_schedule(fresh, read.sigmas, read.timesteps)
        assert fresh.sigmas.tolist() == binding.sigmas
        assert fresh.timesteps.tolist() == binding.timesteps
        assert read.config_digest == canonical.digest(read.config)
        assert config_differences(read.config, fresh) == {}


def test_setting_sigmas_through_the_scheduler_would_shift_them_again() -> None:
    scheduler = unipc()
    sigmas = bind(scheduler).sigmas
    scheduler.set_timesteps(sigmas=np.array(sigmas[:-1]))
    assert scheduler.sigmas.tolist() != sigmas
    apply_schedule(scheduler, sigmas, bind(scheduler).timesteps)
    assert scheduler.sigmas.tolist() == sigmas


def test_whole_timesteps_stay_integers_and_fractions_are_kept() -> None:
    scheduler = unipc()
    scheduler.set_timesteps(6)
    apply_schedule(
        scheduler, *[list(values) for values in (bind(scheduler).sigmas, bind(scheduler).timesteps)]
    )
    assert scheduler.timesteps.dtype == torch.int64
    aligned = bind(scheduler, sigmas=[0.9991, 0.7, 0.5, 0.4, 0.3, 0.2, 0.0])
    apply_schedule(scheduler, aligned.sigmas, aligned.timesteps)
    assert scheduler.timesteps.dtype == torch.float32
    assert scheduler.timesteps[0].item() == pytest.approx(999.1)


def test_config_holds_settings_and_nothing_private() -> None:
    config = relevant_config(unipc())
    assert config["flow_shift"] == 3.0
    assert config["trained_betas"] is None
    assert config["disable_corrector"] == []
    assert not [name for name in config if name.startswith("_")]


@pytest.mark.parametrize("default", [-math.inf, math.inf])
def test_what_is_infinite_is_left_out_and_must_be_at_its_default(default: float) -> None:
    scheduler = DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
    scheduler.register_to_config(lambda_min_clipped=default)
    config = relevant_config(scheduler)
    assert "lambda_min_clipped" not in config
    assert canonical.digest(config)
    infinite = {name: actual for name, (_, actual) in config_differences(config, scheduler).items()}
    assert infinite == ({} if default < 0 else {"lambda_min_clipped": math.inf})


def test_config_differences_name_both_values() -> None:
    expected = relevant_config(unipc())
    assert config_differences(expected, unipc(flow_shift=5.0)) == {"flow_shift": (3.0, 5.0)}
    assert config_differences(expected | {"gone": 1}, unipc()) == {"gone": (1, "nothing")}


def test_a_setting_of_a_later_release_must_be_at_its_default() -> None:
    expected = relevant_config(unipc())
    del expected["solver_order"]
    assert config_differences(expected, unipc()) == {}
    assert config_differences(expected, unipc(solver_order=3)) == {"solver_order": (2, 3)}


def test_step_index_before_during_and_after() -> None:
    scheduler = unipc()
    scheduler.set_timesteps(3)
    assert step_index(scheduler) == 0
    scheduler.set_begin_index(1)
    assert step_index(scheduler) == 1
    scheduler.set_begin_index(0)
    x = torch.zeros(1, 2)
    for k, t in enumerate(scheduler.timesteps):
        assert step_index(scheduler) == k
        x = scheduler.step(x, t, x, return_dict=False)[0]
    assert step_index(scheduler) == 3
    scheduler.set_timesteps(3)
    assert step_index(scheduler) == 0


def test_two_evaluations_a_step_are_refused() -> None:
    scheduler = FlowMatchHeunDiscreteScheduler()
    scheduler.set_timesteps(3)
    with pytest.raises(
        UnsupportedModel, match="FlowMatchHeunDiscreteScheduler evaluates the model 2 times a step"
    ):
        bind(scheduler)


def test_number_of_sigmas() -> None:
    with pytest.raises(RefusedRun, match="2 sigmas were given for 6 steps, expected 7"):
        bind(unipc(), sigmas=[1.0, 0.0])
