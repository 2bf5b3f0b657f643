"""ZImagePipeline: Qwen3 text of any length, guidance branches in one batched forward, an image VAE.

The pipeline runs both branches in one batch; here each has a forward of its own. Attention then has other shapes, so
guided latents agree with the pipeline's to the precision of the dtype, unguided ones bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, ZImagePipeline, ZImageTransformer2DModel
from torch import Tensor

from budc.compiler.denoisers.conditioning import Condition
from budc.compiler.models.pipelines.latents import draw, image_frames, load_vae, tiled_where_needed
from budc.compiler.models.pipelines.mixins import ImageCells
from budc.compiler.models.pipelines.text import one_by_one, text_pipeline
from budc.policies.profile import ModelProfile
from budc.policies.samples import Sample
from budc.runtimes.sampling.loading import loading


class ZImageAdapter(ImageCells):
    """The steps of ZImagePipeline, as in its `__call__`.

    A branch's condition: "text" (N, longest, width), of which the first "tokens" (N,) are not padding.
    """

    # The transformer pads a batch to its longest prompt and masks the rest.
    batch: int | None = 1
    linear = True

    def encode(
        self, folder: Path, profile: ModelProfile, samples: Sequence[Sample], device: torch.device
    ) -> dict[str, Condition]:
        """Encode prompts, and negative prompts where there is guidance."""
        pipe = text_pipeline(ZImagePipeline, folder, "text_encoder", profile, device)
        length = {} if profile.text_tokens is None else {"max_sequence_length": profile.text_tokens}

        def encode(text: str) -> Tensor:
            ((embedding,), _) = pipe.encode_prompt(
                text, do_classifier_free_guidance=False, device=device, **length
            )
            assert isinstance(embedding, Tensor)
            return embedding

        texts = {"cond": [s.prompt for s in samples], "uncond": [s.negative for s in samples]}
        return {branch: one_by_one(encode, texts[branch]) for branch in profile.branches}

    def noise(self, folder: Path, profile: ModelProfile, seeds: Sequence[int]) -> Tensor:
        """Draw float32 latents (N, channels, rows, columns) from one CPU generator for each seed."""
        rows, columns = self.cells(folder, profile)
        with loading(folder / "transformer"):
            config = ZImageTransformer2DModel.load_config(folder / "transformer", local_files_only=True)
            channels = int(config["in_channels"])
        return draw(seeds, (channels, 2 * rows, 2 * columns))

    def inputs(self, condition: Condition, latents: Tensor, timestep: Tensor) -> dict[str, Any]:
        """Latents in the text's dtype and text without padding, one tensor for each sample; time runs from 0 to 1."""
        assert isinstance(condition, Mapping)
        text, tokens = condition["text"], condition["tokens"].tolist()
        return {
            "x": list(latents.to(text.dtype).unsqueeze(2).unbind()),
            "t": (1000 - timestep.expand(len(latents))) / 1000,
            "cap_feats": [sample[:count] for sample, count in zip(text, tokens, strict=True)],
        }

    def velocity(self, output: Any) -> Tensor:
        """Return (n, channels, rows, columns) in float32, the negative of the network's output."""
        return -torch.stack(output).float().squeeze(2)

    def guide(self, velocities: Mapping[str, Tensor], guidance: float) -> Tensor:
        """Classifier-free guidance, where a scale of 0 means none: cond + guidance * (cond - uncond)."""
        cond = velocities["cond"]
        return cond + guidance * (cond - velocities["uncond"]) if "uncond" in velocities else cond

    def decoder(
        self, folder: Path, profile: ModelProfile, device: torch.device
    ) -> Callable[[Tensor], Tensor]:
        """Load the VAE in float32."""
        vae = load_vae(AutoencoderKL, folder, device)

        def decode(latents: Tensor) -> Tensor:
            scaled = latents.to(device, vae.dtype) / vae.config.scaling_factor + vae.config.shift_factor
            image: Tensor = vae.decode(scaled, return_dict=False)[0]
            return image_frames(image)

        return tiled_where_needed(vae, decode)
