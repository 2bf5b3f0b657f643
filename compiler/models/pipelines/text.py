"""Text encoding: a pipeline with its text encoders alone, and prompts put through them in batches or one at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from budc.policies.profile import ModelProfile
from budc.runtimes.sampling.loading import loading

_BATCH = 8


def text_pipeline(
    pipeline_class: Any, folder: Path, encoder: str, profile: ModelProfile, device: torch.device
) -> Any:
    """Load a pipeline without denoiser and VAE, in the profile's dtype.

    Raises:
        WeightsMissing: it cannot be loaded; the error names `encoder`, the folder of the largest text encoder.
    """
    with loading(folder / encoder):
        return pipeline_class.from_pretrained(
            folder,
            transformer=None,
            vae=None,
            dtype=getattr(torch, profile.dtype),
            use_safetensors=True,
            local_files_only=True,
        ).to(device)


def in_batches(encode: Callable[[list[str]], Sequence[Tensor]], prompts: Sequence[str]) -> list[Tensor]:
    """Return what `encode` makes of all prompts: each of its tensors (n, ...) joined to one (N, ...), on the CPU."""
    parts: list[list[Tensor]] = []
    with torch.no_grad():
        for first in range(0, len(prompts), _BATCH):
            encoded = encode(list(prompts[first : first + _BATCH]))
            parts.append([tensor.cpu() for tensor in encoded])
    return [torch.cat(same) for same in zip(*parts, strict=True)]


def one_by_one(encode: Callable[[str], Tensor], prompts: Sequence[str], samples: int) -> dict[str, Tensor]:
    """Return embeddings (tokens, width) of prompts of any length as a condition of so many samples, on the CPU.

    "text" (samples, longest, width) is padded with zeros, "tokens" (samples,) says how many are a sample's own. A lone
    prompt is for all samples. One at a time is how a deployment encodes, so that the embeddings are its own.
    """
    with torch.no_grad():
        found = [encode(prompt).cpu() for prompt in prompts]
    tokens = torch.tensor([len(embedding) for embedding in found])
    return {
        "text": pad_sequence(found, batch_first=True).expand(samples, -1, -1),
        "tokens": tokens.expand(samples),
    }
