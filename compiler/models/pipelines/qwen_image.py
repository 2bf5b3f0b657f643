"""QwenImagePipeline: Qwen2.5-VL text of any length, two guidance branches, latents in 2 × 2 cells, an image VAE.

Guidance is not a weighted sum: the guided velocity of each cell is scaled to the norm of the conditional one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLQwenImage, QwenImagePipeline, QwenImageTransformer2DModel
from torch import Tensor

from budc.compiler.denoisers.conditioning import Condition
from budc.compiler.models.pipelines.latents import (
    draw,
    image_frames,
    load_vae,
    normalisation,
    pack,
    tiled_where_needed,
    unpack,
)
from budc.compiler.models.pipelines.mixins import ImageCells, PlainVelocity
from budc.compiler.models.pipelines.text import one_by_one, text_pipeline
from budc.policies.profile import ModelProfile
from budc.policies.samples import Sample
from budc.runtimes.sampling.loading import loading

_TEXT_TOKENS = 512
"""Length to which the pipeline truncates text by default."""


def text_length(profile: ModelProfile) -> int:
    """Return the length to which text is truncated, the profile's or the pipeline's."""
    return profile.text_tokens or _TEXT_TOKENS


class QwenImageAdapter(ImageCells, PlainVelocity):
    """The steps of QwenImagePipeline, as in its `__call__`.

    A branch's condition: "text" (N, longest, width), of which the first "tokens" (N,) are not padding, and "cells" (N,
    2), the rows and columns of its image.
    """

    # The transformer masks the padding of a batch, and attention with a mask sums in another order.
    batch: int | None = 1
    linear = False

    def encode(
        self, folder: Path, profile: ModelProfile, samples: Sequence[Sample], device: torch.device
    ) -> dict[str, Condition]:
        """Encode prompts and negative prompts."""
        pipe = text_pipeline(QwenImagePipeline, folder, "text_encoder", profile, device)

        def encode(text: str) -> Tensor:
            embeddings, _ = pipe.encode_prompt(text, device=device, max_sequence_length=text_length(profile))
            embedding: Tensor = embeddings[0]
            return embedding

        cells = torch.tensor(self.cells(folder, profile)).expand(len(samples), -1)
        texts = {"cond": [s.prompt for s in samples], "uncond": [s.negative for s in samples]}
        return {branch: one_by_one(encode, texts[branch]) | {"cells": cells} for branch in profile.branches}

    def noise(self, folder: Path, profile: ModelProfile, seeds: Sequence[int]) -> Tensor:
        """Draw latents (N, cells, 4 · channels) in the profile's dtype, one CPU generator for each seed; as float32."""
        rows, columns = self.cells(folder, profile)
        with loading(folder / "transformer"):
            config = QwenImageTransformer2DModel.load_config(folder / "transformer", local_files_only=True)
            channels = int(config["in_channels"]) // 4
        return pack(draw(seeds, (channels, 2 * rows, 2 * columns), getattr(torch, profile.dtype)))

    def inputs(self, condition: Condition, latents: Tensor, timestep: Tensor) -> dict[str, Any]:
        """Latents in the text's dtype, the timestep from 0 to 1, text padded to the batch's longest, with a mask."""
        assert isinstance(condition, Mapping)
        tokens = condition["tokens"]
        longest = int(tokens.max())
        text = condition["text"][:, :longest]
        mask = torch.arange(longest, device=text.device) < tokens[:, None]
        rows, columns = condition["cells"][0].tolist()
        return {
            "hidden_states": latents.to(text.dtype),
            "timestep": timestep.expand(len(latents)).to(text.dtype) / 1000,
            "encoder_hidden_states": text,
            "encoder_hidden_states_mask": None if bool(mask.all()) else mask,
            "img_shapes": [[(1, rows, columns)]] * len(latents),
        }

    def guide(self, velocities: Mapping[str, Tensor], guidance: float) -> Tensor:
        """Classifier-free guidance, each cell (…, 4 · channels) scaled to the norm of the conditional one."""
        cond, uncond = velocities["cond"], velocities["uncond"]
        guided = uncond + guidance * (cond - uncond)
        rescaled: Tensor = guided * (cond.norm(dim=-1, keepdim=True) / guided.norm(dim=-1, keepdim=True))
        return rescaled

    def decoder(
        self, folder: Path, profile: ModelProfile, device: torch.device
    ) -> Callable[[Tensor], Tensor]:
        """Load the VAE in float32."""
        vae = load_vae(AutoencoderKLQwenImage, folder, device)
        rows, columns = self.cells(folder, profile)
        mean, scale = normalisation(vae)

        def decode(latents: Tensor) -> Tensor:
            unpacked = unpack(latents, rows, columns).unsqueeze(2).to(device, vae.dtype)
            image: Tensor = vae.decode(unpacked / scale + mean, return_dict=False)[0][:, :, 0]
            return image_frames(image)

        return tiled_where_needed(vae, decode)

    def compression(self, vae: Path) -> int:
        """Return how many pixels one latent covers in each direction, with an AutoencoderKLQwenImage."""
        config = AutoencoderKLQwenImage.load_config(vae, local_files_only=True)
        return int(2 ** len(config["temperal_downsample"]))
