"""The conformance suite on ComfyUI's engine, and its final latents beside those of diffusers' runtime."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from comfyui_under_test import EngineUnderTest

from budc.runtimes.testing import GOLDEN, STEPS, RuntimeConformance
from budc.schema.policy import PolicyDocument

GUIDANCE = 5.0

pytestmark = pytest.mark.filterwarnings("ignore::budc.runtimes.admission.trust.UnsignedWarning")


# The solver of the policy with one payload, the engine's own Euler with the other: each is independent of the other.
@pytest.fixture(scope="module", params=["UniPC velocity", "Euler trunk-residual"])
def variant(request: pytest.FixtureRequest) -> list[str]:
    return request.param.split()


@pytest.fixture(scope="module")
def pipe(wan_folder: Path, variant: list[str]) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline

    pipe = WanPipeline.from_pretrained(wan_folder)
    if variant[0] == "Euler":
        pipe.scheduler = FlowMatchEulerDiscreteScheduler(shift=pipe.scheduler.config.flow_shift)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def base(untrained: PolicyDocument, pipe: Any, variant: list[str]) -> PolicyDocument:
    from budc.runtimes.sampling.families import family_of
    from budc.runtimes.sampling.schedulers import sampler_binding

    document = GOLDEN["plain reuse"].document(untrained)
    sampler = sampler_binding(
        pipe.scheduler, STEPS, GUIDANCE, family=family_of(pipe.transformer), guidance_rule="classifier-free"
    )
    policy = msgspec.structs.replace(document.policy, payload=variant[1])
    return msgspec.structs.replace(document, policy=policy, sampler=sampler)


@pytest.fixture(scope="module")
def under_test(pipe: Any, wan_folder: Path, base: PolicyDocument) -> EngineUnderTest:
    return EngineUnderTest(pipe, wan_folder, base)


class TestComfyUI(RuntimeConformance):
    @pytest.fixture
    def runtime(self, under_test: EngineUnderTest) -> EngineUnderTest:
        return under_test


@pytest.mark.parametrize("name", list(GOLDEN))
def test_final_latents_are_those_of_diffusers(under_test: EngineUnderTest, name: str) -> None:
    document = GOLDEN[name].document(under_test.document)
    actual, expected = under_test.run(document).latents, under_test.diffusers(document)
    assert np.abs(actual - expected).max() < 1e-5 * np.abs(expected).max()
