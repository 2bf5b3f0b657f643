"""Text encoding: load a pipeline with its text encoders alone; encode prompts in batches or one at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers.hooks import apply_group_offloading
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from budc.policies.profile import ModelProfile
from budc.runtimes.sampling.device_memory import free_unused_memory, is_out_of_memory
from budc.runtimes.sampling.loading import loading

_Text = TypeVar("_Text")
_BATCH = 8


def text_pipeline(
    pipeline_class: Any,
    folder: Path,
    encoder: str,
    profile: ModelProfile,
    device: torch.device,
    without: Sequence[str] = (),
) -> Any:
    """Load a pipeline without denoiser and VAE, in the profile's dtype; its text encoders compute on the device.

    `without` are its encoders of other things.

    Raises:
        WeightsMissing: it cannot be loaded; the error names `encoder`, the subfolder of the largest text encoder.
    """
    with loading(folder / encoder):
        pipe = pipeline_class.from_pretrained(
            folder,
            transformer=None,
            vae=None,
            **dict.fromkeys(without),
            dtype=getattr(torch, profile.dtype),
            use_safetensors=True,
            local_files_only=True,
        )
    for part in pipe.components.values():
        if isinstance(part, nn.Module):
            onload(part, device)
    return pipe


def onload(encoder: nn.Module, device: torch.device) -> None:
    """Move an encoder to the device; where it does not fit, let it compute there layer by layer."""
    try:
        encoder.to(device)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    else:
        return
    encoder.to("cpu")
    free_unused_memory()
    apply_group_offloading(encoder, onload_device=device, offload_type="leaf_level")


def in_batches(encode: Callable[[Sequence[_Text]], Sequence[Tensor]], texts: Sequence[_Text]) -> list[Tensor]:
    """Encode texts in batches and join each of the tensors (n, ...) that `encode` returns to (N, ...), on the CPU."""
    batches: list[list[Tensor]] = []
    with torch.no_grad():
        for first in range(0, len(texts), _BATCH):
            encoded = encode(texts[first : first + _BATCH])
            batches.append([tensor.cpu() for tensor in encoded])
    return [torch.cat(tensors) for tensors in zip(*batches, strict=True)]


def one_by_one(encode: Callable[[str], Tensor], texts: Sequence[str]) -> dict[str, Tensor]:
    """Encode N texts of any length, each to (tokens, width), as a condition of N samples, on the CPU.

    "text" (N, longest, width) is padded with zeros; "tokens" (N,) are the lengths without padding. Texts are encoded
    one at a time as in a deployment, which makes the embeddings equal; one that comes again is encoded once.
    """
    encoded: dict[str, Tensor] = {}
    with torch.no_grad():
        for text in texts:
            if text not in encoded:
                encoded[text] = encode(text).cpu()
        embeddings = [encoded[text] for text in texts]
    return {
        "text": pad_sequence(embeddings, batch_first=True),
        "tokens": torch.tensor([len(embedding) for embedding in embeddings]),
    }
