"""A workflow for FLUX on the engine's own graph of nodes, with random weights of FLUX's own width of a head."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from comfyui_models import engine_model
from comfyui_workflow import WorkflowError, Workflows, policy_graph
from msgspec.structs import replace
from wan_runs import SEED

import budc
from budc.runtimes.sampling.families import family_of
from budc.runtimes.sampling.schedulers import sampler_binding

STEPS, TOKENS = 6, 256
GRAPH = policy_graph(
    "flux",
    {
        "text": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["clip", 0], "text": "a red box"}},
        "guided": {"class_type": "FluxGuidance", "inputs": {"conditioning": ["text", 0], "guidance": ["settings", 2]}},
        "empty": {
            "class_type": "EmptySD3LatentImage",
            "inputs": {"width": ["settings", 3], "height": ["settings", 4], "batch_size": 2},
        },
    },
    cfg=1.0,
    positive=["guided", 0],
    negative=["text", 0],
)  # fmt: skip

pytestmark = pytest.mark.filterwarnings("ignore::budc.runtimes.admission.trust.UnsignedWarning")


@pytest.fixture(scope="module")
def pipe() -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        num_layers=1, num_single_layers=2, num_attention_heads=1, joint_attention_dim=16, pooled_projection_dim=8,
        guidance_embeds=True,
    ).eval()  # fmt: skip
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    pipe = FluxPipeline(scheduler, None, None, None, None, None, transformer)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_a_policy_runs_on_a_single_file_of_flux(
    pipe: Any, compiled_for: Any, signer: Any, key_pair: Any, tmp_path: Any
) -> None:
    import comfy.latent_formats
    from comfy.sample import prepare_noise

    document = compiled_for(pipe, text_tokens=TOKENS)
    sampler = sampler_binding(
        pipe.scheduler,
        STEPS,
        3.5,
        family=family_of(pipe.transformer),
        guidance_rule="distilled",
        image_tokens=6,
    )
    document = replace(document, sampler=sampler)
    generator = torch.Generator().manual_seed(1)
    text, pooled = torch.randn(1, TOKENS, 16, generator=generator), torch.randn(1, 8, generator=generator)
    workflows = Workflows(tmp_path)
    workflows.add_model("flux.safetensors", engine_model(pipe.transformer).model.diffusion_model)
    workflows.add_policy("flux.budc.json", document, signer, key_pair.public)
    encoded = [[text, {"pooled_output": pooled}]]
    workflows.text_encoder(
        SimpleNamespace(tokenize=lambda words: words, encode_from_tokens_scheduled=lambda _: encoded)
    )
    noise = prepare_noise(torch.zeros(2, 16, 4, 6), SEED)
    with budc.applied(pipe, document, allow_unsigned=True):
        packed = pipe(
            prompt_embeds=text.expand(2, -1, -1), pooled_prompt_embeds=pooled.expand(2, -1), height=32, width=48,
            latents=pipe._pack_latents(noise, 2, 16, 4, 6), guidance_scale=3.5, num_inference_steps=STEPS,
            output_type="latent",
        ).images  # fmt: skip
    expected = comfy.latent_formats.Flux().process_out(pipe._unpack_latents(packed, 32, 48, 8))
    actual = workflows.run(GRAPH)
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() < 1e-5 * expected.abs().max()
    guided = {**GRAPH["guided"], "inputs": {"conditioning": ["text", 0], "guidance": 4.0}}
    with pytest.raises(
        WorkflowError, match=r"guidance: .* for 3.5, this run has 4.0; set FluxGuidance to 3.5"
    ):
        workflows.run(GRAPH | {"guided": guided})
    inputs = {
        "model": ["applied", 0], "seed": SEED, "steps": 20, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple",
        "positive": ["guided", 0], "negative": ["text", 0], "latent_image": ["empty", 0], "denoise": 1.0,
    }  # fmt: skip
    with pytest.raises(
        WorkflowError, match="steps: the policy has 6, this run asks for 20; connect the output"
    ):
        workflows.run(GRAPH | {"sample": {"class_type": "KSampler", "inputs": inputs}})
