"""Models of two denoisers, as Wan2.2 has them, on ComfyUI's engine: two MODELs, one sampler."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from comfyui_under_test import EngineUnderTest
from msgspec.structs import replace

from budc.policies.profile import load_profile
from budc.runtimes.comfyui.apply import apply
from budc.runtimes.comfyui.sampler import policy_sampler
from budc.runtimes.testing import GOLDEN, STEPS, GoldenPolicy, RuntimeConformance
from budc.schema.errors import CalibrationMismatch, UsageError, WeightsMismatch
from budc.schema.policy import PolicyDocument, Shape

FIRST = 3
"""The first step of the second denoiser."""

pytestmark = pytest.mark.filterwarnings("ignore::budc.runtimes.admission.trust.UnsignedWarning")


@pytest.fixture(scope="module", params=["trunk-residual", "velocity"])
def base(request: Any, pair_folder: Path, make_document: Any) -> PolicyDocument:
    from budc.compiler.models.binding import model_binding
    from budc.compiler.models.model import load_model

    size = {"height": 32, "width": 48, "frames": 5, "text_tokens": 8}
    profile = replace(load_profile("wan2.2"), **size, steps=STEPS, dtype="float32", architecture={})
    made = make_document(
        steps=STEPS,
        model=model_binding(profile, pair_folder),
        sampler=load_model(profile, pair_folder, torch.device("cpu")).sampler(STEPS),
        shape=Shape(**size, dtype="float32"),
    )
    assert made.sampler.first_steps == (FIRST,)
    made = GOLDEN["two terms twice"].document(made)
    return replace(made, policy=replace(made.policy, payload=request.param))


@pytest.fixture(scope="module")
def under_test(pair_folder: Path, base: PolicyDocument) -> EngineUnderTest:
    from diffusers import WanPipeline

    pipe = WanPipeline.from_pretrained(pair_folder)
    pipe.set_progress_bar_config(disable=True)
    return EngineUnderTest(pipe, pair_folder, base)


class TestComfyUI(RuntimeConformance):
    @pytest.fixture(params=[name for name, golden in GOLDEN.items() if golden.fits((FIRST,))])
    def golden(self, request: pytest.FixtureRequest) -> GoldenPolicy:
        return GOLDEN[request.param]

    @pytest.fixture
    def runtime(self, under_test: EngineUnderTest) -> EngineUnderTest:
        return under_test


@pytest.mark.parametrize("guidance", [None, 2.0])
def test_final_latents_are_those_of_diffusers(under_test: EngineUnderTest, guidance: float | None) -> None:
    document = under_test.document
    if guidance is not None:
        experts = [replace(expert, guidance=guidance) for expert in document.sampler.experts]
        document = replace(document, sampler=replace(document.sampler, experts=experts))
    before, under_test.document = under_test.document, document
    try:
        actual, expected = under_test.run(document).latents, under_test.diffusers(document)
    finally:
        under_test.document = before
    assert np.abs(actual - expected).max() < 1e-5 * np.abs(expected).max()


def test_the_second_model_must_be_there_and_the_right_one(under_test: EngineUnderTest) -> None:
    first, (second,) = under_test.patcher, under_test.later
    with pytest.raises(UsageError, match=r"has 2 \(transformer, transformer_2\), this node 1"):
        apply(first, under_test.document)
    with pytest.raises(WeightsMismatch, match="transformer in this MODEL"):
        apply(second, under_test.document, [first])


def test_what_is_on_the_second_model_is_checked_too(under_test: EngineUnderTest) -> None:
    from comfy.samplers import KSAMPLER
    from comfyui_models import sample

    first, (second,), document = under_test.patcher, under_test.later, under_test.document

    def run(other: Any) -> None:
        start = torch.zeros(1, 16, 2, 4, 6)
        sampler, sigmas = KSAMPLER(policy_sampler(document.sampler)), torch.tensor(document.sampler.sigmas)
        guidance = document.sampler.guidance
        sample(apply(first, document, [other]), start, *under_test.texts, guidance, sampler, sigmas)

    patched, changed = second.clone(), second.clone()
    patched.add_patches({"diffusion_model.blocks.0.self_attn.q.weight": ("diff", (torch.ones(32, 32),))})
    with pytest.raises(CalibrationMismatch, match=r"adapters: .* none; this MODEL has LoRA on 1 weights"):
        run(patched)
    changed.set_model_attn1_patch(lambda *_: None)
    with pytest.raises(CalibrationMismatch, match="another node has put attn1_patch"):
        run(changed)
    run(second)
