"""A scheduler of another class than the folder's keeps the shift of the schedule."""

import pytest

torch = pytest.importorskip("torch")

import diffusers  # noqa: E402
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler  # noqa: E402

from budc.runtimes.sampling.scheduler_choice import deployed_scheduler  # noqa: E402

MULTISTEP = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}


# numpy says this to DPMSolverMultistepScheduler.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")


def sigmas(scheduler):
    scheduler.set_timesteps(10)
    return scheduler.sigmas


@pytest.mark.parametrize("name", ["UniPCMultistepScheduler", "DPMSolverMultistepScheduler"])
def test_from_euler_to_a_multistep_solver(name):
    euler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler = deployed_scheduler(getattr(diffusers, name), euler.config, {})
    assert (type(scheduler).__name__, scheduler.config.flow_shift) == (name, 3.0)
    expected = sigmas(UniPCMultistepScheduler(**MULTISTEP, flow_shift=3.0))
    torch.testing.assert_close(sigmas(scheduler), expected, atol=1e-2, rtol=0)


def test_from_a_multistep_solver_to_euler():
    config = UniPCMultistepScheduler(**MULTISTEP, flow_shift=3.0).config
    scheduler = deployed_scheduler(FlowMatchEulerDiscreteScheduler, config, {"flow_shift": 5.0})
    assert scheduler.config.shift == 5.0


def test_the_folder_s_own_class_is_left_as_it_is():
    config = UniPCMultistepScheduler(**MULTISTEP, flow_shift=3.0).config
    assert deployed_scheduler(UniPCMultistepScheduler, config, {}).config.flow_shift == 3.0
    assert deployed_scheduler(UniPCMultistepScheduler, config, {"flow_shift": 5.0}).config.flow_shift == 5.0
