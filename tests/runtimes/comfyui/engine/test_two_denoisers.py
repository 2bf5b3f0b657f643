"""Models of two denoisers, as Wan2.2 has them, on ComfyUI's engine: two MODELs, one sampler."""

import hashlib
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from comfyui_models import engine_model
from comfyui_under_test import EngineUnderTest
from comfyui_workflow import VIDEO_GRAPH, WorkflowError, Workflows
from msgspec.structs import replace
from safetensors.torch import save_file
from wan_runs import PROMPT, SEED

from budc.policies.profile import load_profile
from budc.runtimes.comfyui.adapters import load_adapter
from budc.runtimes.comfyui.apply import apply
from budc.runtimes.comfyui.sampler import policy_sampler
from budc.runtimes.testing import GOLDEN, STEPS, GoldenPolicy, RuntimeConformance
from budc.schema.errors import CalibrationMismatch, UsageError, WeightsMismatch
from budc.schema.policy import AdapterRule, PolicyDocument, ScaledAdapter, Shape

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


def test_a_lora_may_be_for_one_of_the_two(under_test: EngineUnderTest, tmp_path: Path) -> None:
    first, (second,), document = under_test.patcher, under_test.later, under_test.document
    name, path = "diffusion_model.blocks.0.self_attn.q", tmp_path / "style.safetensors"
    save_file({f"{name}.lora_A.weight": torch.ones(1, 32), f"{name}.lora_B.weight": torch.ones(32, 1)}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    style = ScaledAdapter(name="style", file=digest, scale=0.5, denoiser="transformer_2")
    rule = AdapterRule(rule="listed", scaled=[style])
    document = replace(document, model=replace(document.model, adapters=rule))
    sample_pair(under_test, document, first, load_adapter(second, path, 0.5))
    with pytest.raises(
        CalibrationMismatch, match=r"this MODEL has style.safetensors .*, which the policy does not"
    ):
        sample_pair(under_test, document, load_adapter(first, path, 0.5), load_adapter(second, path, 0.5))
    with pytest.raises(CalibrationMismatch, match=r"with style .* at scale 0.5, this MODEL has none"):
        sample_pair(under_test, document, first, second)


def test_a_workflow_of_two_files_and_one_sampler(
    under_test: EngineUnderTest, tmp_path: Path, signer: Any, key_pair: Any
) -> None:
    from comfy.latent_formats import Wan21
    from comfy.sample import prepare_noise

    first, (second,), document = under_test.patcher, under_test.later, under_test.document
    workflows, config = Workflows(tmp_path), under_test.pipe.transformer.config
    sizes = {
        "num_heads": config.num_attention_heads,
        "freq_dim": config.freq_dim,
        "text_dim": config.text_dim,
    }
    graph = deepcopy(VIDEO_GRAPH)
    for name, network in {"model": under_test.pipe.transformer, "low": under_test.pipe.transformer_2}.items():
        # Another test may have left LoRA in the weights of those MODELs.
        workflows.add_model(f"{name}.safetensors", engine_model(network).model.diffusion_model, **sizes)
        inputs = {"unet_name": f"{name}.safetensors", "weight_dtype": "default"}
        graph[name] = {"class_type": "UNETLoader", "inputs": inputs}
    graph["applied"]["inputs"]["low_noise_model"] = ["low", 0]
    graph["negative"] = {"class_type": "CLIPTextEncode", "inputs": {"clip": ["clip", 0], "text": ""}}
    workflows.add_policy("nano.budc.json", document, signer, key_pair.public)
    positive, negative = under_test.texts
    workflows.text_encoder(
        SimpleNamespace(
            tokenize=lambda text: text,
            encode_from_tokens_scheduled=lambda text: positive if text == PROMPT else negative,
        )
    )
    start = prepare_noise(torch.zeros(1, 16, 2, 4, 6), SEED)
    expected = Wan21().process_out(sample_pair(under_test, document, first, second, start))
    actual = workflows.run(graph)
    assert (actual - expected).abs().max() < 1e-5 * expected.abs().max()
    graph["model"], graph["low"] = graph["low"], graph["model"]
    with pytest.raises(WorkflowError, match="transformer in this MODEL has tensor root") as refused:
        workflows.run(graph)
    assert refused.value.node == "BudcApplyPolicy"


def sample_pair(
    under_test: EngineUnderTest, document: PolicyDocument, first: Any, second: Any, start: Any = None
) -> torch.Tensor:
    from comfy.samplers import KSAMPLER
    from comfyui_models import sample

    sampler, sigmas = KSAMPLER(policy_sampler(document.sampler)), torch.tensor(document.sampler.sigmas)
    model, start = apply(first, document, [second]), torch.zeros(1, 16, 2, 4, 6) if start is None else start
    return sample(model, start, *under_test.texts, document.sampler.guidance, sampler, sigmas)


def test_what_is_on_the_second_model_is_checked_too(under_test: EngineUnderTest) -> None:
    first, (second,), document = under_test.patcher, under_test.later, under_test.document
    patched, changed = second.clone(), second.clone()
    patched.add_patches({"diffusion_model.blocks.0.self_attn.q.weight": ("diff", (torch.ones(32, 32),))})
    with pytest.raises(CalibrationMismatch, match=r"adapters: .* none; this MODEL has LoRA on 1 weights"):
        sample_pair(under_test, document, first, patched)
    changed.set_model_attn1_patch(lambda *_: None)
    with pytest.raises(CalibrationMismatch, match="another node has put attn1_patch"):
        sample_pair(under_test, document, first, changed)
    sample_pair(under_test, document, first, second)
