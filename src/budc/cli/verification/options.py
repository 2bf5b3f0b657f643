"""The flags of `budc verify`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class VerifyOptions:
    """The flags of `budc verify`."""

    path: Path
    model: str | None
    weights: Path | None
    replay: bool
    samples: int | None
    tolerance: float | None
    held_out: Path | None
    device: str | None
    lora: tuple[str, ...]
    trusted: tuple[Path, ...]
    former_keys: tuple[Path, ...]
    require_evaluation: str | None
    config: Path | None
    rehash: bool
    ray: str | None
    workers: int | None
    gpus_per_worker: float | None
    as_json: bool

    @property
    def folder(self) -> Path | None:
        """The model's folder, if its files are to be checked."""
        return self.path if self.weights is None and os.path.isdir(self.path) else self.weights
