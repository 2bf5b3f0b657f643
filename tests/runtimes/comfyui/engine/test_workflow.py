"""Workflows on the engine's own graph of nodes: its loader reads a single file, the pack's nodes run a policy on it.

The file holds the embedded video model under ComfyUI's names; the policy is the one of the package, which is bound to
the folder of diffusers. Final latents are those of diffusers' runtime.
"""

import hashlib
from copy import deepcopy
from typing import Any

import pytest
import torch
from comfyui_models import engine_model
from comfyui_workflow import VIDEO_GRAPH, Graph, WorkflowError, Workflows
from msgspec.structs import replace
from safetensors.torch import save_file
from torch import Tensor
from wan_runs import PROMPT, SEED

import budc
from budc.schema.policy import AdapterRule, PolicyDocument, ScaledAdapter


class TextEncoder:
    """The text encoder of a pipeline of diffusers, called as a CLIP of ComfyUI."""

    def __init__(self, pipe: Any, tokens: int) -> None:
        self._pipe, self._tokens = pipe, tokens

    def tokenize(self, text: str, **_: Any) -> str:
        return text

    def encode_from_tokens_scheduled(self, text: str) -> Any:
        return [[self._pipe.encode_prompt(text, None, False, max_sequence_length=self._tokens)[0], {}]]


@pytest.fixture(scope="module")
def pipe() -> Any:
    pipe = budc.load_pipeline("wan2.1-nano")
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def document() -> PolicyDocument:
    return budc.embedded_policy("wan2.1-nano", nfe=6).document


@pytest.fixture(scope="module")
def workflows(
    pipe: Any, document: PolicyDocument, signer: Any, key_pair: Any, tmp_path_factory: pytest.TempPathFactory
) -> Workflows:
    workflows = Workflows(tmp_path_factory.mktemp("ComfyUI"))
    config = pipe.transformer.config
    sizes = {
        "num_heads": config.num_attention_heads,
        "freq_dim": config.freq_dim,
        "text_dim": config.text_dim,
    }
    workflows.add_model("nano.safetensors", engine_model(pipe.transformer).model.diffusion_model, **sizes)
    workflows.add_policy("nano.budc.json", document, signer, key_pair.public)
    workflows.text_encoder(TextEncoder(pipe, document.pipeline().shape.text_tokens))
    return workflows


@pytest.fixture
def graph() -> Graph:
    return deepcopy(VIDEO_GRAPH)


@pytest.fixture(scope="module")
def expected(pipe: Any, document: PolicyDocument) -> Tensor:
    """The final latents of diffusers' runtime, as the engine's VAE wants them."""
    import comfy.latent_formats
    from comfy.sample import prepare_noise

    shape = document.pipeline().shape
    noise = prepare_noise(torch.zeros(1, 16, 3, 8, 8), SEED)
    with budc.applied(pipe, document, allow_unsigned=True):
        latents = pipe(
            PROMPT, negative_prompt="", height=shape.height, width=shape.width, num_frames=shape.frames,
            max_sequence_length=shape.text_tokens, guidance_scale=document.sampler.guidance, latents=noise,
            num_inference_steps=document.sampler.steps, output_type="latent",
        ).frames  # fmt: skip
    return comfy.latent_formats.Wan21().process_out(latents)


def assert_close(actual: Tensor, expected: Tensor) -> None:
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() < 5e-5 * expected.abs().max()


def test_a_policy_runs_on_a_single_file(workflows: Workflows, graph: Graph, expected: Tensor) -> None:
    assert_close(workflows.run(graph), expected)
    # Progress and a preview go to the browser after each step.
    shown = [data for event, data in workflows.events if event == "progress"]
    assert [data["value"] for data in shown] == list(range(1, 51))
    assert all(data["preview"] is not None for data in shown)


def test_a_checkpoint_of_several_models_is_the_same_model(
    workflows: Workflows, graph: Graph, expected: Tensor
) -> None:
    graph["model"] = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "nano.safetensors"}}
    assert_close(workflows.run(graph), expected)


def test_a_second_prompt_runs_on_the_nodes_of_the_first(workflows: Workflows, graph: Graph) -> None:
    first = workflows.run(graph)
    graph["positive"]["inputs"]["text"] = "a big blue box drifts up on checks"
    assert not torch.allclose(workflows.run(graph), first)
    cached = next(data["nodes"] for event, data in workflows.events if event == "execution_cached")
    assert {"model", "policy", "applied"} <= set(cached)
    graph["positive"]["inputs"]["text"] = PROMPT
    assert torch.equal(workflows.run(graph), first)


@pytest.mark.parametrize(
    ("node", "inputs", "where", "message"),
    [
        ("policy", {"trust": "nobody"}, "BudcLoadPolicy", "put its publisher's public key into models/budc"),
        ("model", {"weight_dtype": "fp8_e4m3fn"}, "BudcApplyPolicy", "transformer in this MODEL has tensor root"),
        ("applied", {"low_noise_model": ["model", 0]}, "BudcApplyPolicy", r"has 1 \(transformer\), this node 2; leave"),
        ("empty", {"width": 128}, "SamplerCustom", "width: the policy was calibrated for 64, this run has 128"),
        ("sample", {"cfg": 4.0}, "SamplerCustom", "cfg: the policy was calibrated for 5.0, this run has 4.0"),
    ],
)  # fmt: skip
def test_a_node_that_refuses_shows_why(
    workflows: Workflows, graph: Graph, node: str, inputs: dict[str, Any], where: str, message: str
) -> None:
    graph[node]["inputs"].update(inputs)
    with pytest.raises(WorkflowError, match=message) as refused:
        workflows.run(graph)
    assert refused.value.node == where
    assert str(refused.value).count("\n") <= 1


def test_a_listed_lora_runs_through_the_node_that_keeps_its_file(
    workflows: Workflows, graph: Graph, document: PolicyDocument, signer: Any, key_pair: Any
) -> None:
    name, path = "diffusion_model.blocks.0.ffn.0", workflows.models / "loras" / "style.safetensors"
    save_file({f"{name}.lora_A.weight": torch.ones(1, 96), f"{name}.lora_B.weight": torch.ones(384, 1)}, path)
    inputs = {"model": ["model", 0], "lora": path.name, "strength": 0.5}
    graph["lora"] = {"class_type": "BudcLoadAdapter", "inputs": inputs}
    graph["applied"]["inputs"]["model"] = ["lora", 0]
    with pytest.raises(
        WorkflowError, match="adapters: the policy was calibrated for none; this MODEL has style"
    ):
        workflows.run(graph)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    adapters = AdapterRule(rule="listed", scaled=[ScaledAdapter(name="style", file=digest, scale=0.5)])
    listed = replace(document, model=replace(document.model, adapters=adapters))
    workflows.add_policy("styled.budc.json", listed, signer, key_pair.public)
    graph["policy"]["inputs"]["policy"] = "styled.budc.json"
    assert workflows.run(graph).isfinite().all()


def test_a_cancelled_workflow_leaves_the_next_one_as_it_was(
    workflows: Workflows, graph: Graph, expected: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph["sample"]["inputs"]["noise_seed"] = SEED + 1

    def cancel(event: str, data: Any, _client: Any = None) -> None:
        if event == "progress" and data["value"] == 3:
            workflows.cancel()
        workflows.events.append((event, data))

    monkeypatch.setattr(workflows, "send_sync", cancel)
    with pytest.raises(WorkflowError, match="cancelled"):
        workflows.run(graph)
    monkeypatch.undo()
    assert [data["value"] for event, data in workflows.events if event == "progress"] == [1, 2, 3]
    graph["sample"]["inputs"]["noise_seed"] = SEED
    assert_close(workflows.run(graph), expected)


def test_the_policies_of_the_folder_are_what_a_node_offers(workflows: Workflows) -> None:
    import nodes

    offered = nodes.NODE_CLASS_MAPPINGS["BudcLoadPolicy"].INPUT_TYPES()["required"]
    assert "nano.budc.json" in offered["policy"][0]
