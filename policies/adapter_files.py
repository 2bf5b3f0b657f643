"""Adapter files (LoRA) that the user names: FILE, FILE:SCALE, and FILE:SCALE@DENOISER where a model has several.

Only headers are read here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from budc.option_names import option
from budc.schema.errors import ModelError, UnsafeWeights, UnsupportedModel, UsageError
from budc.schema.tensors import open_weights, read_header

_LARGEST_SCALE = 1000.0
_TEXT_PREFIXES = ("text_encoder", "lora_te")


@dataclass(frozen=True)
class AdapterFile:
    """An adapter to be loaded at a scale, 1 for as it is."""

    path: Path
    scale: float
    name: str
    """Its file's name, in characters that an artifact takes."""
    denoiser: str | None = None
    """The denoiser that it is for; None for all."""

    def is_for(self, denoiser: str) -> bool:
        """Whether it is to be loaded into a denoiser."""
        return self.denoiser in (None, denoiser)


def adapter_files(texts: Sequence[str], denoisers: Sequence[str]) -> tuple[AdapterFile, ...]:
    """Return the adapters that the user names, for a model with these denoisers.

    Raises:
        UsageError: no file is named, a scale is none, or a file is named twice for one denoiser.
        ModelError: a file is missing, no safetensors file, or also for a text encoder.
    """
    files: list[AdapterFile] = []
    for text in texts:
        file = _parsed(text, denoisers)
        if any(file.path == other.path and _overlap(file, other) for other in files):
            raise UsageError(
                f"{option('lora')}: {file.path} is there twice", remedy="give it once, at its scale"
            )
        _check_file(file.path)
        files.append(_renamed(file, files))
    return tuple(files)


def with_further(files: Sequence[AdapterFile], further: AdapterFile) -> tuple[AdapterFile, ...]:
    """Return adapters with one more. One of the same file is replaced by it, as a denoiser takes a file once."""
    others = [file for file in files if not (file.path == further.path and _overlap(file, further))]
    return (*others, _renamed(further, others))


def _renamed(file: AdapterFile, others: Sequence[AdapterFile]) -> AdapterFile:
    """Return the file under a name that no other has."""
    taken = sum(other.name.split("--")[0] == file.name for other in others)
    return replace(file, name=f"{file.name}--{taken + 1}") if taken else file


def _parsed(text: str, denoisers: Sequence[str]) -> AdapterFile:
    rest, _, denoiser = text.rpartition("@")
    if denoiser not in denoisers:
        rest, denoiser = text, ""
    path, colon, number = rest.rpartition(":")
    scale = 1.0
    try:
        scale = float(number) if colon else 1.0
    except ValueError:
        path = ""
    # A colon may be part of the file's name.
    path = path or rest
    if not path or not 0 < abs(scale) <= _LARGEST_SCALE:
        raise UsageError(
            f"{option('lora')}: {text!r} names no file with a scale other than 0",
            remedy="write FILE or FILE:SCALE, such as style.safetensors:0.8",
        )
    name = re.sub(r"[^A-Za-z0-9._-]+|--+", "-", Path(path).stem).strip("-.")[:100] or "adapter"
    return AdapterFile(Path(path), scale, name, denoiser or None)


def _overlap(first: AdapterFile, second: AdapterFile) -> bool:
    return None in (first.denoiser, second.denoiser) or first.denoiser == second.denoiser


def _check_file(path: Path) -> None:
    if path.suffix != ".safetensors":
        raise UnsafeWeights(
            f"{option('lora')}: {path} is no safetensors file", remedy="give one; others are never loaded"
        )
    try:
        with open_weights(path) as file:
            names = [entry.name for entry in read_header(file, path)]
    except ModelError as error:
        raise type(error)(
            f"{option('lora')}: {error}", remedy="give a safetensors file of an adapter"
        ) from error
    if any(name.startswith(_TEXT_PREFIXES) for name in names):
        raise UnsupportedModel(
            f"{option('lora')}: {path} changes a text encoder too, to which a policy cannot be bound",
            remedy="save the part for the transformer alone",
        )
