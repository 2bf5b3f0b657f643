"""Dummy inputs: random tensors of the true shapes for one forward of each known transformer class.

They serve where only shapes matter: to count operations on the meta device, to time a forward, to test a trunk. Noise
comes from the default generator; zeros could be faster than real latents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from budc.schema.errors import UnsupportedModel

SPATIAL, TEMPORAL = 8, 4
"""Compression of the families' autoencoders, of each side and in time."""

IMAGE_TOKENS = 257
"""Of CLIP ViT-H/14 at 224 × 224, with which Wan encodes an image: 16 × 16 patches and the class."""


class InputSize(NamedTuple):
    """Output size in frames and pixels, text length in tokens, samples."""

    frames: int
    height: int
    width: int
    text_tokens: int
    batch: int = 1


def dummy_inputs(
    class_name: str, config: Mapping[str, Any], size: InputSize, **options: Any
) -> dict[str, Any]:
    """Return keyword arguments for one forward; `options` are the device and dtype of the tensors.

    Raises:
        UnsupportedModel: nothing is known of the class.
    """
    if class_name not in _INPUTS:
        raise UnsupportedModel(
            f"no forward is known for the transformer class {class_name}, expected one of "
            f"{', '.join(sorted(_INPUTS))}"
        )

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, **options)

    return _INPUTS[class_name](config, size, noise)


def _video_latents(config: Mapping[str, Any], size: InputSize, noise: Callable[..., Tensor]) -> Tensor:
    frames = (size.frames - 1) // TEMPORAL + 1
    rows, columns = size.height // SPATIAL, size.width // SPATIAL
    return noise(size.batch, config["in_channels"], frames, rows, columns)


def _timesteps(value: float, like: Tensor, batch: int) -> Tensor:
    return torch.full((batch,), value, device=like.device, dtype=like.dtype)


def _wan(config: Mapping[str, Any], size: InputSize, noise: Callable[..., Tensor]) -> dict[str, Any]:
    latents = _video_latents(config, size, noise)
    inputs = {
        "hidden_states": latents,
        "timestep": _timesteps(500.0, latents, size.batch),
        "encoder_hidden_states": noise(size.batch, size.text_tokens, config["text_dim"]),
    }
    if config.get("image_dim"):
        inputs["encoder_hidden_states_image"] = noise(size.batch, IMAGE_TOKENS, config["image_dim"])
    return inputs


def _hunyuan_video(
    config: Mapping[str, Any], size: InputSize, noise: Callable[..., Tensor]
) -> dict[str, Any]:
    latents = _video_latents(config, size, noise)
    mask = torch.ones(size.batch, size.text_tokens, device=latents.device, dtype=latents.dtype)
    return {
        "hidden_states": latents,
        "timestep": _timesteps(500.0, latents, size.batch),
        "encoder_hidden_states": noise(size.batch, size.text_tokens, config["text_embed_dim"]),
        "encoder_attention_mask": mask,
        "pooled_projections": noise(size.batch, config["pooled_projection_dim"]),
        "guidance": _timesteps(6000.0, latents, size.batch),
    }


def _flux(config: Mapping[str, Any], size: InputSize, noise: Callable[..., Tensor]) -> dict[str, Any]:
    rows, columns = (side // (2 * SPATIAL) for side in (size.height, size.width))
    latents = noise(size.batch, rows * columns, config["in_channels"])
    grid = torch.cartesian_prod(*(torch.arange(n, device=latents.device) for n in (1, rows, columns)))
    return {
        "hidden_states": latents,
        "encoder_hidden_states": noise(size.batch, size.text_tokens, config["joint_attention_dim"]),
        "pooled_projections": noise(size.batch, config["pooled_projection_dim"]),
        "timestep": _timesteps(0.5, latents, size.batch),
        "img_ids": grid.to(latents.dtype),
        "txt_ids": torch.zeros(size.text_tokens, 3, device=latents.device, dtype=latents.dtype),
        "guidance": _timesteps(3.5, latents, size.batch) if config["guidance_embeds"] else None,
    }


def _qwen_image(config: Mapping[str, Any], size: InputSize, noise: Callable[..., Tensor]) -> dict[str, Any]:
    rows, columns = (side // (2 * SPATIAL) for side in (size.height, size.width))
    latents = noise(size.batch, rows * columns, config["in_channels"])
    return {
        "hidden_states": latents,
        "encoder_hidden_states": noise(size.batch, size.text_tokens, config["joint_attention_dim"]),
        "timestep": _timesteps(0.5, latents, size.batch),
        "img_shapes": [[(1, rows, columns)]] * size.batch,
    }


def _z_image(config: Mapping[str, Any], size: InputSize, noise: Callable[..., Tensor]) -> dict[str, Any]:
    rows, columns = size.height // SPATIAL, size.width // SPATIAL
    latents = [noise(config["in_channels"], 1, rows, columns) for _ in range(size.batch)]
    return {
        "x": latents,
        "t": _timesteps(0.5, latents[0], size.batch),
        "cap_feats": [noise(size.text_tokens, config["cap_feat_dim"]) for _ in range(size.batch)],
    }


_INPUTS: Mapping[str, Callable[[Mapping[str, Any], InputSize, Callable[..., Tensor]], dict[str, Any]]] = {
    "FluxTransformer2DModel": _flux,
    "HunyuanVideoTransformer3DModel": _hunyuan_video,
    "QwenImageTransformer2DModel": _qwen_image,
    "WanTransformer3DModel": _wan,
    "ZImageTransformer2DModel": _z_image,
}
