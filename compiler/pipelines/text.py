"""Text encoding: a pipeline with its text encoders alone, and prompts put through them batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from budc.compiler.loading import loading
from budc.policies.profile import ModelProfile

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
