"""Parts: the memory of a pipeline's encoders and VAE, counted on the meta device from their configurations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import torch
import transformers
from torch import nn

from budc.compiler.planning.published_parts import PUBLISHED
from budc.compiler.planning.vae_memory import VaeMemory
from budc.policies.costs import PartCosts
from budc.policies.folder_profile import read_object
from budc.policies.profile import ModelProfile, embedded_folder

ENCODERS = ("text_encoder", "image_encoder")
"""How the names of encoders in a pipeline's index begin."""


class _Part(NamedTuple):
    """An encoder or a VAE by class and configuration."""

    class_name: str
    config: Mapping[str, Any]


def count_parts(profile: ModelProfile, folder: Path | None) -> PartCosts | None:
    """Return what the parts beside the denoiser take.

    They are those of `folder`, of an embedded model, or of a shipped profile's repository; None for others, whose parts
    are not known.
    """
    if folder is None and profile.embedded:
        folder = embedded_folder(profile)
    if folder is not None:
        parts = list(_parts_of(folder))
    elif profile.repository and profile.pipeline_class in PUBLISHED:
        parts = [_Part(*part) for part in PUBLISHED[profile.pipeline_class]]
    else:
        return None
    vae_part = next(part for part in parts if hasattr(diffusers, part.class_name))
    vae = VaeMemory(_on_meta(diffusers, vae_part), profile)
    encoders = [_on_meta(transformers, part) for part in parts if part is not vae_part]
    # Those of images compute in float32, when those of texts are gone.
    of_images = [encoder for encoder in encoders if encoder.main_input_name == "pixel_values"]
    of_texts = [encoder.to(getattr(torch, profile.dtype)) for encoder in encoders if encoder not in of_images]
    from_image, from_image_tiled = vae.encoding() if of_images else (0, 0)
    whole, tiled = vae.decoding()
    return PartCosts(
        encoder=max(sum(map(tensor_bytes, kind)) for kind in (of_texts, of_images)),
        encoder_layer=max(map(_largest_layer, encoders)),
        image_encoding=from_image,
        tiled_image_encoding=from_image_tiled,
        decoding=whole,
        tiled_decoding=tiled,
    )


def tensor_bytes(model: nn.Module) -> int:
    """Return the bytes of a network's parameters and buffers; what two names share counts once."""
    tensors = {id(tensor): tensor for tensor in model.state_dict(keep_vars=True).values()}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _parts_of(folder: Path) -> Iterator[_Part]:
    """Yield the encoders and the VAE that a folder's index names."""
    for name, entry in read_object(folder / "model_index.json").items():
        if name.startswith((*ENCODERS, "vae")) and isinstance(entry, list) and entry[-1]:
            yield _Part(entry[-1], read_object(folder / name / "config.json"))


def _on_meta(library: Any, part: _Part) -> Any:
    network = getattr(library, part.class_name)
    with torch.device("meta"):
        if library is diffusers:
            return network.from_config(part.config).eval().requires_grad_(False)
        return network(network.config_class(**part.config))


def _largest_layer(encoder: nn.Module) -> int:
    return max(
        sum(parameter.numel() * parameter.element_size() for parameter in module.parameters(recurse=False))
        for module in encoder.modules()
    )
