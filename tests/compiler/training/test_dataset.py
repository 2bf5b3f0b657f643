"""Gradients and errors of a training set: the same in whatever memory there is."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from budc.compiler.denoisers.microbatches import MicroBatches  # noqa: E402
from budc.compiler.evaluation.reference import encode_prompts  # noqa: E402
from budc.compiler.models.denoiser import model_denoiser  # noqa: E402
from budc.compiler.models.model import load_model  # noqa: E402
from budc.compiler.training.dataset import TrainingSet, gradient, log_error  # noqa: E402
from budc.compiler.training.parameters import PolicyParameters  # noqa: E402
from budc.policies.profile import load_profile  # noqa: E402
from budc.schema.policy import Policy  # noqa: E402

STEPS = 6


@pytest.fixture(params=["wan", "flux", pytest.param("experts", marks=pytest.mark.slow)])
def model(request: pytest.FixtureRequest) -> Any:
    if request.param == "wan":
        folder = request.getfixturevalue("wan_folder")
        return load_model(load_profile("wan2.1-nano"), folder, torch.device("cpu"))
    name = {"flux": "flux", "experts": "pair"}[request.param]
    profile = load_profile(request.getfixturevalue(f"{name}_profile"))
    return load_model(profile, request.getfixturevalue(f"{name}_folder"), torch.device("cpu"))


class Crowded:
    """A denoiser with memory for `room` samples."""

    def __init__(self, denoiser: Any, room: int) -> None:
        self._denoiser, self.room = denoiser, room

    def __getattr__(self, name: str) -> Any:
        return getattr(self._denoiser, name)

    def compute(self, latents: Any, timestep: Any, condition: Any) -> Any:
        if len(latents) > self.room:
            raise torch.cuda.OutOfMemoryError("no room")
        return self._denoiser.compute(latents, timestep, condition)


def parameters(model: Any, denoiser: Any, payload: str) -> PolicyParameters:
    sampler = model.sampler(STEPS)
    computed = {0, 3, *denoiser.first_steps(sampler.timesteps)}
    rows = [[] if step in computed else [1.0] for step in range(STEPS)]
    policy = Policy.of(payload, dict.fromkeys(denoiser.branches, rows))
    return PolicyParameters(policy, model.scheduler, sampler.sigmas, sampler.timesteps, True)


@pytest.mark.parametrize("payload", ["velocity", "trunk-residual"])
def test_checkpointed_blocks_and_micro_batches_give_the_same_gradient(model: Any, payload: str) -> None:
    denoiser = model_denoiser(model)
    conditions = encode_prompts(model, ["a red box", "a blue ring", "two small stars"], range(3))
    training_set = TrainingSet(conditions, torch.zeros_like(conditions.noise))
    trained, rows = parameters(model, denoiser, payload), [2, 0, 1]
    expected = gradient(denoiser, trained, training_set, rows, MicroBatches(3))
    expected_loss = log_error(denoiser, trained, training_set, MicroBatches(3))
    assert all(values.abs().max() > 0 for values in expected)
    assert not any(network.is_gradient_checkpointing for network in model.denoisers)

    crowded = Crowded(denoiser, room=1)
    microbatches = MicroBatches(3, make_room=crowded.checkpoint_blocks)
    gradients = gradient(crowded, trained, training_set, rows, microbatches)
    assert microbatches.at_once == 1
    assert all(network.is_gradient_checkpointing for network in model.denoisers)
    for actual, wanted in zip(gradients, expected, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-3, atol=1e-6)
    assert log_error(crowded, trained, training_set, microbatches) == pytest.approx(expected_loss, abs=1e-4)


def test_blocks_are_checkpointed_before_the_batch_is_halved(model: Any) -> None:
    denoiser = model_denoiser(model)
    conditions = encode_prompts(model, ["a red box", "a blue ring"], range(2))
    training_set = TrainingSet(conditions, torch.zeros_like(conditions.noise))
    crowded = Crowded(denoiser, room=1)

    def checkpoint_blocks() -> bool:
        crowded.room = 2
        return denoiser.checkpoint_blocks()

    microbatches = MicroBatches(2, make_room=checkpoint_blocks)
    gradient(crowded, parameters(model, denoiser, "velocity"), training_set, [0, 1], microbatches)
    assert microbatches.at_once == 2
    assert any(network.is_gradient_checkpointing for network in model.denoisers)
