"""The nodes: load a policy, apply it to a MODEL, its sampler and sigmas, its negative prompt, its LoRA.

Refusals are raised with message and remedy in one line, which ComfyUI shows on the node. ComfyUI and torch are
imported when a node is asked for, not before.
"""

from pathlib import Path
from typing import Any

from budc.runtimes.comfyui.policy_files import FOLDER, NOBODY, open_policy, policy_names, trust_names
from budc.runtimes.comfyui.refusals import shown
from budc.schema.errors import UsageError

POLICY = "BUDC_POLICY"
CATEGORY = "budc"


class LoadPolicy:
    """A policy file of `models/budc`, opened by a signature that is trusted."""

    CATEGORY, FUNCTION = CATEGORY, "load"
    RETURN_TYPES, RETURN_NAMES = (POLICY,), ("policy",)
    DESCRIPTION = (
        "Opens a signed policy of models/budc. Choose the publisher's public key, or a trust file, as trust."
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """Return the inputs: files of the folder."""
        files = _files()
        return {
            "required": {
                "policy": (policy_names(files),),
                "trust": (trust_names(files),),
                "allow_unsigned": ("BOOLEAN", {"default": False}),
            }
        }

    @classmethod
    def IS_CHANGED(cls, policy: str, trust: str, allow_unsigned: bool) -> str:  # noqa: N802
        """Return what changes with the files, so that an edited one is read anew."""
        paths = [_path(name) for name in (policy, trust) if name != NOBODY]
        return " ".join(str(Path(path).stat().st_mtime_ns) for path in paths)

    def load(self, policy: str, trust: str, allow_unsigned: bool) -> tuple[Any]:
        """Return the policy. Raises BudcError."""
        with shown():
            return (open_policy(_path(policy), None if trust == NOBODY else _path(trust), allow_unsigned),)


class ApplyPolicy:
    """A MODEL that runs under a policy."""

    CATEGORY, FUNCTION = CATEGORY, "apply"
    RETURN_TYPES, RETURN_NAMES = ("MODEL",), ("model",)
    DESCRIPTION = (
        "Returns the model under the policy, for SamplerCustom with the policy's sampler and sigmas. Wan2.2: the model "
        "for high noise and low_noise_model become one, for one sampler."
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """Return the inputs."""
        return {
            "required": {
                "model": ("MODEL",),
                "policy": (POLICY,),
                "allow_uncalibrated": ("BOOLEAN", {"default": False}),
            },
            "optional": {"low_noise_model": ("MODEL",)},
        }

    def apply(
        self, model: Any, policy: Any, allow_uncalibrated: bool, low_noise_model: Any = None
    ) -> tuple[Any]:
        """Return a clone of the MODEL, which goes over to the one for low noise by itself. Raises BudcError."""
        from budc.runtimes.comfyui.apply import apply

        later = () if low_noise_model is None else (low_noise_model,)
        with shown():
            return (apply(model, policy.document, later, allow_uncalibrated=allow_uncalibrated),)


class PolicySampler:
    """What a policy was compiled for: its sampler and sigmas for SamplerCustom, guidance and size."""

    CATEGORY, FUNCTION = CATEGORY, "settings"
    RETURN_TYPES = ("SAMPLER", "SIGMAS", "FLOAT", "INT", "INT", "INT")
    RETURN_NAMES = ("sampler", "sigmas", "guidance", "width", "height", "frames")
    DESCRIPTION = (
        "What the policy was compiled for. guidance is the cfg of SamplerCustom; for models with distilled guidance "
        "(FLUX) it is FluxGuidance, and cfg is 1. A policy for several sizes gives its first, or the one asked for."
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """Return the inputs."""
        pixels, frames = {"default": 0, "max": 65536, "step": 8}, {"default": 0, "max": 65536}
        sizes = {"width": ("INT", pixels), "height": ("INT", pixels), "frames": ("INT", frames)}
        return {"required": {"policy": (POLICY,)}, "optional": sizes}

    def settings(self, policy: Any, width: int = 0, height: int = 0, frames: int = 0) -> tuple[Any, ...]:
        """Return sampler, sigmas (steps + 1,) with the terminal 0, guidance and size. Raises BudcError."""
        import comfy.samplers
        import torch

        from budc.runtimes.comfyui.guidance import guidance_input
        from budc.runtimes.comfyui.sampler import policy_sampler
        from budc.runtimes.comfyui.sizes import calibrated_size

        with shown():
            document, shape = calibrated_size(policy.document, width, height, frames)
            sampler = comfy.samplers.KSAMPLER(policy_sampler(document.sampler))
            sigmas = torch.tensor(list(document.sampler.sigmas), dtype=torch.float32)
            return sampler, sigmas, guidance_input(document), shape.width, shape.height, shape.frames


class NegativePrompt:
    """The negative prompt that a policy was calibrated with, encoded by the workflow's CLIP."""

    CATEGORY, FUNCTION = CATEGORY, "encode"
    RETURN_TYPES, RETURN_NAMES = ("CONDITIONING",), ("negative",)
    DESCRIPTION = (
        "Encodes the policy's own negative prompt, so that the run can tell that it is the calibrated one."
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """Return the inputs."""
        return {"required": {"clip": ("CLIP",), "policy": (POLICY,)}}

    def encode(self, clip: Any, policy: Any) -> tuple[Any]:
        """Return the conditioning. Raises UsageError: the policy has no fixed negative prompt."""
        from budc.runtimes.comfyui.checks import NEGATIVE_TEXT

        negative = policy.document.sampler.negative_prompt
        with shown():
            if negative is None or negative.text is None:
                raise UsageError(
                    f"{policy.document.name} is not bound to one negative prompt",
                    remedy="encode a text of your own with CLIPTextEncode",
                )
        encoded = clip.encode_from_tokens_scheduled(clip.tokenize(negative.text))
        return ([[text, {**notes, NEGATIVE_TEXT: negative.text}] for text, notes in encoded],)


class LoadAdapter:
    """A LoRA file on a MODEL, for policies that list it."""

    CATEGORY, FUNCTION = CATEGORY, "load"
    RETURN_TYPES, RETURN_NAMES = ("MODEL",), ("model",)
    DESCRIPTION = (
        "Loads a LoRA as ComfyUI does, and keeps its file's digest, so that a policy can tell that it lists it. "
        'Put it before "Apply budc policy".'
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """Return the inputs: files of ComfyUI's folder of LoRA."""
        import folder_paths

        strength = {"default": 1.0, "min": -100.0, "max": 100.0, "step": 0.01}
        files = folder_paths.get_filename_list("loras")
        return {"required": {"model": ("MODEL",), "lora": (files,), "strength": ("FLOAT", strength)}}

    def load(self, model: Any, lora: str, strength: float) -> tuple[Any]:
        """Return a clone of the MODEL. Raises UsageError: the file is for another network."""
        import folder_paths

        from budc.runtimes.comfyui.adapters import load_adapter

        with shown():
            return (load_adapter(model, folder_paths.get_full_path_or_raise("loras", lora), strength),)


NODE_CLASS_MAPPINGS = {
    "BudcLoadPolicy": LoadPolicy,
    "BudcApplyPolicy": ApplyPolicy,
    "BudcPolicySampler": PolicySampler,
    "BudcNegativePrompt": NegativePrompt,
    "BudcLoadAdapter": LoadAdapter,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "BudcLoadPolicy": "Load budc policy",
    "BudcApplyPolicy": "Apply budc policy",
    "BudcPolicySampler": "budc sampler and sigmas",
    "BudcNegativePrompt": "budc negative prompt",
    "BudcLoadAdapter": "budc LoRA",
}


def _files() -> list[str]:
    import folder_paths

    if FOLDER not in folder_paths.folder_names_and_paths:
        folder = Path(folder_paths.models_dir) / FOLDER
        folder_paths.folder_names_and_paths[FOLDER] = ([str(folder)], {".json", ".pub", ".toml"})
    names: list[str] = folder_paths.get_filename_list(FOLDER)
    return names


def _path(name: str) -> str:
    import folder_paths

    _files()
    path: str = folder_paths.get_full_path_or_raise(FOLDER, name)
    return path
