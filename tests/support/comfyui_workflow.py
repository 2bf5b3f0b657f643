"""Workflows on ComfyUI's own graph of nodes: validated and executed as its server does with what a browser sends.

The engine's loaders, samplers and the rest are its own; text encoders are those of the test, as the embedded models have
small ones that the engine knows no class for.
"""

import asyncio
import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor
from wan_runs import PROMPT, SEED

import budc.runtimes.comfyui
from budc.schema.artifact import seal
from budc.schema.policy import PolicyDocument
from budc.schema.signers import Signer

EXTRA_NODES = ("custom_sampler", "hunyuan", "flux", "sd3", "wan")
"""Files of `comfy_extras` whose nodes workflows use."""

Graph = dict[str, dict[str, Any]]


def policy_graph(name: str, nodes: Graph, **sampled: Any) -> Graph:
    """Return a workflow that samples a single file under a policy of `models/budc`, both called `name`, and saves latents.

    `nodes` make the conditioning and the empty latents, from the text encoder "clip" and the policy's "settings";
    `sampled` are the inputs of the sampler that they feed.
    """
    sampler = {
        "model": ["applied", 0], "add_noise": True, "noise_seed": SEED, "cfg": ["settings", 2],
        "sampler": ["settings", 0], "sigmas": ["settings", 1], "latent_image": ["empty", 0], **sampled,
    }  # fmt: skip
    return {
        "model": {"class_type": "UNETLoader", "inputs": {"unet_name": f"{name}.safetensors", "weight_dtype": "default"}},
        "policy": {
            "class_type": "BudcLoadPolicy",
            "inputs": {"policy": f"{name}.budc.json", "trust": "release.pub", "allow_unsigned": False},
        },
        "applied": {
            "class_type": "BudcApplyPolicy",
            "inputs": {"model": ["model", 0], "policy": ["policy", 0], "allow_uncalibrated": False},
        },
        "settings": {"class_type": "BudcPolicySampler", "inputs": {"policy": ["policy", 0]}},
        "clip": {"class_type": "TestTextEncoder", "inputs": {}},
        **nodes,
        "sample": {"class_type": "SamplerCustom", "inputs": sampler},
        "save": {"class_type": "SaveLatent", "inputs": {"samples": ["sample", 0], "filename_prefix": "sample"}},
    }  # fmt: skip


VIDEO_GRAPH = policy_graph(
    "nano",
    {
        "positive": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["clip", 0], "text": PROMPT}},
        "negative": {"class_type": "BudcNegativePrompt", "inputs": {"clip": ["clip", 0], "policy": ["policy", 0]}},
        "empty": {
            "class_type": "EmptyHunyuanLatentVideo",
            "inputs": {
                "width": ["settings", 3], "height": ["settings", 4], "length": ["settings", 5], "batch_size": 1,
            },
        },
    },
    positive=["positive", 0],
    negative=["negative", 0],
)  # fmt: skip
"""A clip, as the policy says."""


class WorkflowError(Exception):
    """What a browser shows of a workflow that failed: the node, and its line."""

    def __init__(self, node: str, message: str) -> None:
        super().__init__(message)
        self.node = node


class Workflows:
    """An installation of ComfyUI below `folder`, with the pack among its custom nodes.

    `folder` has `models/`, `output/` and `custom_nodes/`. `events` are what the browser was told in the last run.
    """

    def __init__(self, folder: Path) -> None:
        import comfy.utils
        import execution
        import folder_paths
        import nodes

        comfy.utils.set_progress_bar_global_hook(self._progress)
        self.folder, self.models = folder, folder / "models"
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.client_id, self.last_node_id = "browser", None
        folder_paths.models_dir = str(self.models)
        folder_paths.folder_names_and_paths.pop("budc", None)
        for name in ("diffusion_models", "checkpoints", "loras", "budc"):
            (self.models / name).mkdir(parents=True)
            if name != "budc":
                folder_paths.add_model_folder_path(name, str(self.models / name), is_default=True)
        folder_paths.set_output_directory(str(folder / "output"))
        pack = folder / "custom_nodes" / "budc"
        pack.parent.mkdir()
        pack.symlink_to(Path(budc.runtimes.comfyui.__file__).parent, target_is_directory=True)
        extras = Path(nodes.__file__).parent / "comfy_extras"
        for extra in EXTRA_NODES:
            path = extras / f"nodes_{extra}.py"
            assert asyncio.run(nodes.load_custom_node(str(path), module_parent="comfy_extras")), extra
        assert asyncio.run(nodes.load_custom_node(str(pack)))
        self._executor = execution.PromptExecutor(
            self, cache_type=execution.CacheType.CLASSIC, cache_args={"lru": 0, "ram": 0, "ram_inactive": 0}
        )

    def add_model(self, name: str, network: Any, **settings: Any) -> None:
        """Write a network of the engine as a single file, alone and as a checkpoint.

        The engine reads most settings off the tensors' shapes; `settings` are those that it takes for granted otherwise.
        """
        tensors = network.state_dict()
        metadata = {"config": json.dumps({"transformer": settings})} if settings else None
        save_file(tensors, self.models / "diffusion_models" / name, metadata)
        checkpoint = {f"model.diffusion_model.{key}": tensor for key, tensor in tensors.items()}
        save_file(checkpoint, self.models / "checkpoints" / name, metadata)

    def add_policy(self, name: str, document: PolicyDocument, signer: Signer, public: bytes) -> None:
        """Write a signed policy, and `release.pub`."""
        (self.models / "budc" / name).write_bytes(seal(document, signer))
        (self.models / "budc" / "release.pub").write_bytes(public)

    def text_encoder(self, clip: Any) -> None:
        """Register the node `TestTextEncoder`, which returns `clip`."""
        import nodes

        class TextEncoder:
            CATEGORY, FUNCTION, RETURN_TYPES = "test", "load", ("CLIP",)

            @classmethod
            def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
                return {"required": {}}

            def load(self) -> tuple[Any]:
                return (clip,)

        nodes.NODE_CLASS_MAPPINGS["TestTextEncoder"] = TextEncoder

    def send_sync(self, event: str, data: Any, _client: Any = None) -> None:
        """Take what the executor tells the browser, as the engine's server does."""
        if isinstance(data, dict):
            self.events.append((event, data))

    def cancel(self) -> None:
        """Do what the browser's button does."""
        import nodes

        nodes.interrupt_processing()

    def _progress(self, value: int, total: int, preview: Any = None, node_id: Any = None) -> None:
        # As main.py of the engine does: a run ends between two steps.
        from comfy.model_management import throw_exception_if_processing_interrupted

        throw_exception_if_processing_interrupted()
        self.send_sync("progress", {"value": value, "max": total, "preview": preview})

    def run(self, graph: Graph) -> Tensor:
        """Execute a workflow that ends in one SaveLatent; return what it has saved.

        Raises:
            WorkflowError: a node's inputs are invalid, a node failed, or the run was cancelled.
        """
        import execution

        self.events.clear()
        for latents in (self.folder / "output").rglob("*.latent"):
            latents.unlink()
        valid, error, outputs, node_errors = asyncio.run(execution.validate_prompt("run", graph, None))
        if not valid:
            raise WorkflowError(",".join(node_errors), str(error) + str(node_errors))
        self._executor.execute(
            graph, "run", {"client_id": self.client_id, "preview_method": "latent2rgb"}, outputs
        )
        for event, data in self.events:
            if event == "execution_error":
                raise WorkflowError(data["node_type"], data["exception_message"])
            if event == "execution_interrupted":
                raise WorkflowError(data["node_type"], "cancelled")
        (saved,) = (self.folder / "output").rglob("*.latent")
        return load_file(saved)["latent_tensor"]
