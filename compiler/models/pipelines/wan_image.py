"""WanImageToVideoPipeline (Wan2.1): what WanPipeline does, with a first frame that the network sees in two ways.

A CLIP encoder turns it into tokens beside the text's, and the VAE turns it into latents of the whole clip, in which
every other frame is gray. These latents and a mask, which is 1 at the first frame, are further channels of the input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import WanImageToVideoPipeline
from torch import Tensor

from budc.compiler.denoisers.conditioning import Condition
from budc.compiler.models.pipelines.latents import tiled_where_needed
from budc.compiler.models.pipelines.text import onload
from budc.compiler.models.pipelines.wan import WanAdapter
from budc.policies.conditioning_images import open_image
from budc.policies.profile import ModelProfile
from budc.policies.samples import Sample, SampleImage
from budc.runtimes.sampling.device_memory import free_unused_memory
from budc.runtimes.sampling.loading import loading
from budc.schema.errors import UsageError


class WanImageToVideoAdapter(WanAdapter):
    """The steps of WanImageToVideoPipeline, as in its `__call__`, without a last frame.

    A branch's condition, in the profile's dtype: "text" (N, tokens, width), "image" (N, tokens, width), and
    "first_frame" (N, mask and latent channels, frames, rows, columns).
    """

    pipeline_class: Any = WanImageToVideoPipeline
    image_parts = ("image_encoder", "image_processor")

    def encode(
        self, folder: Path, profile: ModelProfile, samples: Sequence[Sample], device: torch.device
    ) -> dict[str, Condition]:
        """Encode prompts, negative prompts and images; one encoder at a time is on the device.

        Raises:
            UsageError: a sample has no image, or its file has changed.
        """
        cond, uncond = self.texts(folder, profile, samples, device)
        free_unused_memory()
        images = self._images(folder, profile, samples, device)
        texts = {"cond": cond, "uncond": uncond}
        return {branch: {"text": texts[branch], **images} for branch in profile.branches}

    def inputs(self, condition: Condition, latents: Tensor, timestep: Tensor) -> dict[str, Any]:
        """Latents and the first frame's channels in the text's dtype, one timestep for each sample."""
        assert isinstance(condition, Mapping)
        text = condition["text"]
        return {
            "hidden_states": torch.cat([latents.to(text.dtype), condition["first_frame"]], dim=1),
            "timestep": timestep.expand(len(latents)),
            "encoder_hidden_states": text,
            "encoder_hidden_states_image": condition["image"],
        }

    @torch.no_grad()
    def _images(
        self, folder: Path, profile: ModelProfile, samples: Sequence[Sample], device: torch.device
    ) -> dict[str, Tensor]:
        """Return "image" and "first_frame" of N samples on the CPU, encoded one at a time as in a deployment.

        An image that comes again is encoded once.
        """
        images = [_image(sample) for sample in samples]
        distinct, dtype = list(dict.fromkeys(images)), getattr(torch, profile.dtype)
        pipe = _image_pipeline(folder)
        onload(pipe.image_encoder, device)
        tokens = {image: pipe.encode_image(open_image(image), device).to("cpu", dtype) for image in distinct}
        pipe.image_encoder = None
        free_unused_memory()
        encode = tiled_where_needed(pipe.vae.to(device), partial(_first_frame, pipe, profile))
        pixels = partial(pipe.video_processor.preprocess, height=profile.height, width=profile.width)
        frames = {image: encode(pixels(open_image(image)).to(device)).to("cpu", dtype) for image in distinct}
        return {
            "image": torch.cat([tokens[image] for image in images]),
            "first_frame": torch.cat([frames[image] for image in images]),
        }


def _first_frame(pipe: Any, profile: ModelProfile, pixels: Tensor) -> Tensor:
    """Return mask and latents of a clip that begins with one image (1, 3, H, W)."""
    channels: Tensor
    _, channels = pipe.prepare_latents(
        pixels,
        batch_size=1,
        num_channels_latents=pipe.vae.config.z_dim,
        height=profile.height,
        width=profile.width,
        num_frames=profile.frames,
        dtype=torch.float32,
        device=pixels.device,
        # Given, so that no noise is drawn.
        latents=torch.empty(0),
    )
    return channels


def _image_pipeline(folder: Path) -> Any:
    """Load the pipeline with what encodes images alone, in float32 as the model's documentation recommends."""
    with loading(folder / "image_encoder"):
        return WanImageToVideoPipeline.from_pretrained(
            folder,
            tokenizer=None,
            text_encoder=None,
            transformer=None,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
        )


def _image(sample: Sample) -> SampleImage:
    if sample.image is None:
        raise UsageError(
            f"the sample {sample.prompt!r} has no image, but its model starts from one",
            remedy="give each prompt an image",
        )
    return sample.image
