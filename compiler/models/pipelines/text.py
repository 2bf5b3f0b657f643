"""Text encoding: load a pipeline with its text encoders alone; encode prompts in batches or one at a time."""

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
        WeightsMissing: it cannot be loaded; the error names `encoder`, the subfolder of the largest text encoder.
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
    """Encode prompts in batches and join each of the tensors (n, ...) that `encode` returns to (N, ...), on the CPU."""
    batches: list[list[Tensor]] = []
    with torch.no_grad():
        for first in range(0, len(prompts), _BATCH):
            encoded = encode(list(prompts[first : first + _BATCH]))
            batches.append([tensor.cpu() for tensor in encoded])
    return [torch.cat(tensors) for tensors in zip(*batches, strict=True)]


def one_by_one(encode: Callable[[str], Tensor], prompts: Sequence[str], samples: int) -> dict[str, Tensor]:
    """Encode prompts of any length, each to (tokens, width), as a condition of so many samples, on the CPU.

    "text" (samples, longest, width) is padded with zeros; "tokens" (samples,) are the lengths without padding. A single
    prompt serves all samples. Prompts are encoded one at a time as in a deployment, which makes the embeddings equal.
    """
    with torch.no_grad():
        embeddings = [encode(prompt).cpu() for prompt in prompts]
    tokens = torch.tensor([len(embedding) for embedding in embeddings])
    return {
        "text": pad_sequence(embeddings, batch_first=True).expand(samples, -1, -1),
        "tokens": tokens.expand(samples),
    }
