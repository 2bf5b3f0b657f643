"""Probe: what one forward of each known transformer class is given, made up but of the true shapes.

For what depends on shapes alone: counting operations on the meta device, timing a forward, checking that a trunk
fits. Latents are noise from the default generator, so that a device with tuned kernels sees no zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from budc.schema.errors import UnsupportedModel

SPATIAL, TEMPORAL = 8, 4
"""Compression of the families' autoencoders, per side and in time."""


class InputSize(NamedTuple):
    """Output size in frames and pixels, text length in tokens, samples."""

    frames: int
    height: int
    width: int
    text_tokens: int
    batch: int = 1


def dummy_inputs(
    class_name: str, config: Mapping[str, Any], extent: InputSize, **options: Any
) -> dict[str, Any]:
    """Return keyword arguments for one forward; `options` are device and dtype of its tensors.

    Raises:
        UnsupportedModel: the class is not known here.
    """
    if class_name not in _PROBES:
        raise UnsupportedModel(
            f"no forward is known for the transformer class {class_name}, expected one of "
            f"{', '.join(sorted(_PROBES))}"
        )

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, **options)

    return _PROBES[class_name](config, extent, noise)


def _volume(config: Mapping[str, Any], extent: InputSize, noise: Callable[..., Tensor]) -> Tensor:
    frames = (extent.frames - 1) // TEMPORAL + 1
    rows, columns = extent.height // SPATIAL, extent.width // SPATIAL
    return noise(extent.batch, config["in_channels"], frames, rows, columns)


def _times(value: float, like: Tensor, batch: int) -> Tensor:
    return torch.full((batch,), value, device=like.device, dtype=like.dtype)


def _wan(config: Mapping[str, Any], extent: InputSize, noise: Callable[..., Tensor]) -> dict[str, Any]:
    latents = _volume(config, extent, noise)
    return {
        "hidden_states": latents,
        "timestep": _times(500.0, latents, extent.batch),
        "encoder_hidden_states": noise(extent.batch, extent.text_tokens, config["text_dim"]),
    }


def _hunyuan_video(
    config: Mapping[str, Any], extent: InputSize, noise: Callable[..., Tensor]
) -> dict[str, Any]:
    latents = _volume(config, extent, noise)
    mask = torch.ones(extent.batch, extent.text_tokens, device=latents.device, dtype=latents.dtype)
    return {
        "hidden_states": latents,
        "timestep": _times(500.0, latents, extent.batch),
        "encoder_hidden_states": noise(extent.batch, extent.text_tokens, config["text_embed_dim"]),
        "encoder_attention_mask": mask,
        "pooled_projections": noise(extent.batch, config["pooled_projection_dim"]),
        "guidance": _times(6000.0, latents, extent.batch),
    }


def _flux(config: Mapping[str, Any], extent: InputSize, noise: Callable[..., Tensor]) -> dict[str, Any]:
    rows, columns = (side // (2 * SPATIAL) for side in (extent.height, extent.width))
    latents = noise(extent.batch, rows * columns, config["in_channels"])
    grid = torch.cartesian_prod(*(torch.arange(n, device=latents.device) for n in (1, rows, columns)))
    return {
        "hidden_states": latents,
        "encoder_hidden_states": noise(extent.batch, extent.text_tokens, config["joint_attention_dim"]),
        "pooled_projections": noise(extent.batch, config["pooled_projection_dim"]),
        "timestep": _times(0.5, latents, extent.batch),
        "img_ids": grid.to(latents.dtype),
        "txt_ids": torch.zeros(extent.text_tokens, 3, device=latents.device, dtype=latents.dtype),
        "guidance": _times(3.5, latents, extent.batch) if config["guidance_embeds"] else None,
    }


def _qwen_image(config: Mapping[str, Any], extent: InputSize, noise: Callable[..., Tensor]) -> dict[str, Any]:
    rows, columns = (side // (2 * SPATIAL) for side in (extent.height, extent.width))
    latents = noise(extent.batch, rows * columns, config["in_channels"])
    return {
        "hidden_states": latents,
        "encoder_hidden_states": noise(extent.batch, extent.text_tokens, config["joint_attention_dim"]),
        "timestep": _times(0.5, latents, extent.batch),
        "img_shapes": [[(1, rows, columns)]] * extent.batch,
    }


def _z_image(config: Mapping[str, Any], extent: InputSize, noise: Callable[..., Tensor]) -> dict[str, Any]:
    rows, columns = extent.height // SPATIAL, extent.width // SPATIAL
    latents = [noise(config["in_channels"], 1, rows, columns) for _ in range(extent.batch)]
    return {
        "x": latents,
        "t": _times(0.5, latents[0], extent.batch),
        "cap_feats": [noise(extent.text_tokens, config["cap_feat_dim"]) for _ in range(extent.batch)],
    }


_PROBES: Mapping[str, Callable[[Mapping[str, Any], InputSize, Callable[..., Tensor]], dict[str, Any]]] = {
    "FluxTransformer2DModel": _flux,
    "HunyuanVideoTransformer3DModel": _hunyuan_video,
    "QwenImageTransformer2DModel": _qwen_image,
    "WanTransformer3DModel": _wan,
    "ZImageTransformer2DModel": _z_image,
}
