"""The sampler of a policy and its guidance, beside the solvers in numpy and the pipelines' formula."""

from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor

from budc.runtimes.comfyui.checks import SAMPLERS
from budc.runtimes.comfyui.guidance import guidance_input, rescaled_guidance
from budc.runtimes.comfyui.sampler import BINDING, policy_sampler
from budc.runtimes.sampling.solvers import SOLVERS, Scheduler
from budc.schema.canonical import digest


@pytest.fixture(params=list(SOLVERS))
def binding(make_document: Any, request: pytest.FixtureRequest) -> Any:
    sampler = make_document(steps=6).sampler
    config = {"num_train_timesteps": 1000}
    if request.param == "UniPCMultistepScheduler":
        config = {"solver_order": 2, "prediction_type": "flow_prediction", "use_flow_sigmas": True}
    sigmas = [float(np.float32(sigma)) for sigma in (0.99, 0.91, 0.84, 0.6, 0.42, 0.13, 0.0)]
    changes = {"config": config, "config_digest": digest(config), "sigmas": sigmas}
    return msgspec.structs.replace(sampler, scheduler=request.param, **changes)


def test_a_policy_is_sampled_by_its_own_solver(binding: Any) -> None:
    noise = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    sigmas = torch.tensor(list(binding.sigmas))
    seen: list[tuple[int, float]] = []

    def denoised(x: Tensor, sigma: Tensor, scale: float) -> Tensor:
        seen.append((len(x), float(sigma[0])))
        return x - sigma[0] * (torch.sin(x) * scale)

    steps: list[int] = []
    actual = policy_sampler(binding)(
        denoised, noise, sigmas, {"scale": 0.5}, lambda progress: steps.append(progress["i"]), disable=True
    )
    scheduler, latents = Scheduler(binding), noise.numpy()
    for _ in range(binding.steps):
        latents = scheduler.step(np.sin(latents) * 0.5, latents)
    np.testing.assert_allclose(actual.numpy(), latents, rtol=0, atol=1e-5)
    assert seen == [(2, sigma) for sigma in sigmas.tolist()[:-1]]
    assert steps == list(range(binding.steps))


def test_a_sampler_says_what_it_was_made_from(binding: Any) -> None:
    assert getattr(policy_sampler(binding), BINDING) == binding


def test_samplers_of_the_engine_are_schedulers_that_have_a_solver() -> None:
    assert set(SAMPLERS.values()) < set(SOLVERS)


def test_rescaled_guidance_is_that_of_the_pipeline() -> None:
    generator = torch.Generator().manual_seed(0)
    cond, uncond = torch.randn(2, 2, 3, 1, 4, 6, generator=generator)

    def packed(latents: Tensor) -> Tensor:
        return (
            latents.squeeze(2).unflatten(2, (2, 2)).unflatten(4, (3, 2)).permute(0, 2, 4, 1, 3, 5).flatten(3)
        )

    guided = packed(uncond + 4.0 * (cond - uncond))
    expected = guided * (packed(cond).norm(dim=-1, keepdim=True) / guided.norm(dim=-1, keepdim=True))
    actual = rescaled_guidance({"cond": 0.3 * cond, "uncond": 0.3 * uncond, "cond_scale": 4.0}) / 0.3
    torch.testing.assert_close(packed(actual), expected)


@pytest.mark.parametrize(
    ("class_name", "rule", "guidance", "expected"),
    [
        ("WanTransformer3DModel", "classifier-free", 5.0, 5.0),
        # The pipeline of diffusers counts guidance from 0.
        ("ZImageTransformer2DModel", "classifier-free", 4.0, 5.0),
        ("ZImageTransformer2DModel", "none", 0.0, 1.0),
        ("FluxTransformer2DModel", "distilled", 3.5, 3.5),
    ],
)
def test_guidance_as_the_user_enters_it(class_name: str, rule: str, guidance: float, expected: float) -> None:
    document: Any = SimpleNamespace(
        sampler=SimpleNamespace(guidance=guidance, guidance_rule=rule),
        model=SimpleNamespace(denoisers=[SimpleNamespace(class_name=class_name)]),
    )
    assert guidance_input(document) == expected
