"""Every family on the engine: the embedded models under their own policies, Z-Image and Qwen-Image on random weights.

Final latents are those of diffusers' runtime, to rounding.
"""

from collections.abc import Callable
from typing import Any

import diffusers
import msgspec
import pytest
import torch
from comfyui_models import engine_model, sample
from torch import Tensor

import budc
from budc.runtimes.admission.trust import UnsignedWarning
from budc.runtimes.comfyui.apply import apply
from budc.runtimes.comfyui.checks import NEGATIVE_TEXT
from budc.runtimes.comfyui.guidance import guidance_input
from budc.runtimes.comfyui.sampler import policy_sampler
from budc.runtimes.testing import GOLDEN, STEPS
from budc.schema.policy import BranchPolicy, PolicyDocument

PROMPT = "a small red circle moves left over stripes"
MASK = (True, False, True, True, False, False)
PREDICTOR = ((), (1.0,), (), (), (1.5, -0.5), (1.0,))

pytestmark = pytest.mark.filterwarnings(f"ignore::{UnsignedWarning.__module__}.UnsignedWarning")


def noise_of(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(7))


def on_engine(patcher: Any, document: PolicyDocument, noise: Tensor, positive: Any, negative: Any) -> Tensor:
    import comfy.samplers

    sampler = document.sampler
    solver = comfy.samplers.KSAMPLER(policy_sampler(sampler))
    cfg = guidance_input(document) if sampler.guidance_rule == "classifier-free" else 1.0
    sigmas = torch.tensor(list(sampler.sigmas))
    return sample(apply(patcher, document), noise, positive, negative, cfg, solver, sigmas)


def assert_close(actual: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() < tolerance * expected.abs().max()


@pytest.fixture(scope="module")
def wan_nano() -> Any:
    pipe = budc.load_pipeline("wan2.1-nano")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_the_embedded_video_model_runs_its_own_policy(wan_nano: Any) -> None:
    artifact = budc.embedded_policy("wan2.1-nano", nfe=6)
    # Fifty steps of a trained model carry rounding along.
    assert_wan(wan_nano, artifact, artifact.document, 5e-5)


@pytest.mark.parametrize("name", ["three terms", "separate branches"])
def test_the_embedded_video_model_with_euler(wan_nano: Any, name: str) -> None:
    from budc.runtimes.sampling.families import family_of
    from budc.runtimes.sampling.schedulers import sampler_binding

    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=5.0)
    family = family_of(wan_nano.transformer)
    base = budc.embedded_policy("wan2.1-nano", nfe=6).document
    binding = sampler_binding(scheduler, STEPS, 5.0, family=family, guidance_rule="classifier-free")
    policy = msgspec.structs.replace(base.policy, payload="trunk-residual")
    document = GOLDEN[name].document(msgspec.structs.replace(base, policy=policy, sampler=binding))
    original, wan_nano.scheduler = wan_nano.scheduler, scheduler
    try:
        assert_wan(wan_nano, document, document)
    finally:
        wan_nano.scheduler = original


def assert_wan(pipe: Any, source: Any, document: PolicyDocument, tolerance: float = 1e-5) -> None:
    shape, noise = document.pipeline().shape, noise_of(1, 16, 3, 8, 8)
    texts = pipe.encode_prompt(PROMPT, "", max_sequence_length=shape.text_tokens)
    positive, negative = ([[text, {NEGATIVE_TEXT: ""}]] for text in texts)
    with budc.applied(pipe, source, allow_unsigned=True):
        expected = pipe(
            PROMPT, negative_prompt="", height=shape.height, width=shape.width, num_frames=shape.frames,
            max_sequence_length=shape.text_tokens, guidance_scale=document.sampler.guidance, latents=noise,
            num_inference_steps=document.sampler.steps, output_type="latent",
        ).frames  # fmt: skip
    actual = on_engine(engine_model(pipe.transformer), document, noise, positive, negative)
    assert_close(actual, expected, tolerance)


@pytest.mark.parametrize("nfe", [6, 10])
def test_the_embedded_image_model_runs_its_own_policies(nfe: int) -> None:
    pipe = budc.load_pipeline("flux-nano")
    pipe.set_progress_bar_config(disable=True)
    artifact = budc.embedded_policy("flux-nano", nfe=nfe)
    document = artifact.document
    shape, noise = document.pipeline().shape, noise_of(1, 16, 8, 8)
    tokens = shape.text_tokens
    text, pooled, _ = pipe.encode_prompt(PROMPT, None, max_sequence_length=tokens)
    with budc.applied(pipe, artifact):
        packed = pipe(
            PROMPT, height=shape.height, width=shape.width, max_sequence_length=tokens, output_type="latent",
            guidance_scale=document.sampler.guidance, num_inference_steps=document.sampler.steps,
            latents=diffusers.FluxPipeline._pack_latents(noise, 1, 16, 8, 8),
        ).images  # fmt: skip
    expected = diffusers.FluxPipeline._unpack_latents(packed, 64, 64, 8)
    # The file has half precision, and is computed with in float32.
    patcher = engine_model(pipe.transformer, torch.float16)
    positive = [[text, {"pooled_output": pooled, "guidance": guidance_input(document)}]]
    assert_close(on_engine(patcher, document, noise, positive, [[text, {}]]), expected)


def random_weights(transformer: Any) -> Any:
    torch.manual_seed(0)
    for parameter in transformer.parameters():
        torch.nn.init.normal_(parameter, float(parameter.ndim == 1), 0.1)
    return transformer.eval()


DocumentFor = Callable[..., PolicyDocument]


def document_of(
    make: DocumentFor, pipe: Any, guidance: float, payload: str, image_tokens: int, width: int = 48
) -> PolicyDocument:
    from budc.runtimes.sampling.families import family_of
    from budc.runtimes.sampling.schedulers import sampler_binding

    names = ["cond", "uncond"] if guidance else ["cond"]
    base = make(pipe, MASK, PREDICTOR, branches=[BranchPolicy.of(names, PREDICTOR)], payload=payload)
    rule: Any = "classifier-free" if guidance else "none"
    sampler = sampler_binding(
        pipe.scheduler, len(MASK), guidance, family=family_of(pipe.transformer), guidance_rule=rule,
        image_tokens=image_tokens,
    )  # fmt: skip
    shape = msgspec.structs.replace(base.shape, height=32, width=width)
    return msgspec.structs.replace(base, sampler=sampler, shape=shape)


@pytest.mark.parametrize("payload", ["trunk-residual", "velocity"])
@pytest.mark.parametrize("guidance", [0.0, 4.0])
def test_z_image(compiled_for: DocumentFor, guidance: float, payload: str) -> None:
    # The engine's network has the layers of diffusers' from a width of 1024 on, where 8/3 of it is a multiple of 256.
    transformer = diffusers.ZImageTransformer2DModel(
        n_layers=1, n_refiner_layers=1, dim=1056, n_heads=11, n_kv_heads=11, cap_feat_dim=16, in_channels=16,
        axes_dims=[32, 32, 32], axes_lens=[128, 64, 64],
    )  # fmt: skip
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    pipe = diffusers.ZImagePipeline(scheduler, None, None, None, random_weights(transformer))
    pipe.set_progress_bar_config(disable=True)
    document = document_of(compiled_for, pipe, guidance, payload, 6)
    noise, text = noise_of(1, 16, 4, 6), torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1))
    with budc.applied(pipe, document, allow_unsigned=True):
        expected = pipe(
            prompt_embeds=[text[0]], negative_prompt_embeds=[text[1]], height=32, width=48, latents=noise.clone(),
            num_inference_steps=6, guidance_scale=guidance, output_type="latent", return_dict=False,
        )[0]  # fmt: skip
    positive, negative = ([[row[None], {}]] for row in text)
    actual = on_engine(engine_model(transformer), document, noise, positive, negative)
    assert_close(actual, expected)


@pytest.mark.parametrize("payload", ["trunk-residual", "velocity"])
def test_qwen_image(compiled_for: DocumentFor, payload: str) -> None:
    transformer = diffusers.QwenImageTransformer2DModel(
        num_layers=2, num_attention_heads=2, attention_head_dim=16, joint_attention_dim=16, in_channels=64,
        out_channels=16, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    pipe = diffusers.QwenImagePipeline(scheduler, None, None, None, random_weights(transformer))
    pipe.set_progress_bar_config(disable=True)
    document = document_of(compiled_for, pipe, 4.0, payload, 8, width=64)
    # The engine counts the positions of an odd number of cells otherwise than diffusers.
    noise, text = noise_of(1, 16, 4, 8), torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1))
    with budc.applied(pipe, document, allow_unsigned=True):
        packed = pipe(
            prompt_embeds=text[:1], negative_prompt_embeds=text[1:], true_cfg_scale=4.0, height=32, width=64,
            latents=pipe._pack_latents(noise, 1, 16, 4, 8), num_inference_steps=6, output_type="latent",
        ).images  # fmt: skip
    expected = pipe._unpack_latents(packed, 32, 64, 8)
    positive, negative = ([[row[None], {}]] for row in text)
    actual = on_engine(engine_model(transformer), document, noise[:, :, None], positive, negative)
    assert_close(actual, expected)
