"""Engines: one model in memory under policies of several budgets, in diffusers or in ONNX Runtime.

Both generate a batch with the policy of a given NFE, from one seed a sample, so that a sample does not depend on what
shares its batch. They are called from one thread.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np

import budc


@dataclass(frozen=True)
class Batch:
    """What an engine generated."""

    frames: np.ndarray
    """(N, frames, height, width, 3) in 0..1."""
    seconds: float
    """Of the denoising loop, without text encoding and decoding."""


class Engine(Protocol):
    """What the service needs of a runtime."""

    held: Any
    """What `budc.apply` or `budc.load_onnx` returned: `policies`, `use`, `replace`."""

    def generate(self, nfe: int, prompts: Sequence[str], seeds: Sequence[int]) -> Batch:
        """Generate N samples with the policy of `nfe` evaluations. Raises BudcError: it refuses the run."""


class OnnxEngine:
    """An export of `budc export onnx`; its policies are those of `budc bind`."""

    def __init__(
        self, folder: Path, policies: Sequence[Any], trust: budc.Trust | None, provider: str
    ) -> None:
        self.held = budc.load_onnx(policies, folder, trust=trust, provider=provider)

    def generate(self, nfe: int, prompts: Sequence[str], seeds: Sequence[int]) -> Batch:
        """Generate N samples."""
        pipe = self.held
        pipe.use(nfe=nfe)
        noise = np.concatenate([pipe.noise(seed) for seed in seeds])
        latents, seconds = pipe.denoising_loop(len(prompts)).timed_run(pipe.encode(prompts), noise)
        return Batch(pipe.decode(latents), seconds)


class DiffusersEngine:
    """A model of `budc models`, or a folder of your own (`weights`)."""

    def __init__(
        self, model: str, weights: Path | None, policies: Sequence[Any], trust: budc.Trust | None
    ) -> None:
        self._pipe = budc.load_pipeline(model, weights=weights)
        self.held = budc.apply(self._pipe, policies, trust=trust)

    def generate(self, nfe: int, prompts: Sequence[str], seeds: Sequence[int]) -> Batch:
        """Generate N samples."""
        import torch

        self.held.use(nfe=nfe)
        with loop_timer(self._pipe) as timer:
            output = self._pipe(
                prompt=list(prompts),
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],
                output_type="np",
                return_dict=False,
                **self.held.call_arguments,
            )[0]
        frames = np.asarray(output, np.float32)
        # Pictures have no axis of frames.
        return Batch(frames if frames.ndim == 5 else frames[:, None], timer.seconds)


@contextmanager
def loop_timer(pipe: Any) -> Iterator[SimpleNamespace]:
    """Time the next call's denoising loop, around which a pipeline opens its progress bar."""
    import torch

    timer = SimpleNamespace(seconds=0.0)

    def now() -> float:
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()
        return time.perf_counter()

    @contextmanager
    def progress_bar(total: int) -> Iterator[SimpleNamespace]:
        started = now()
        yield SimpleNamespace(update=lambda count=1: None)
        timer.seconds = now() - started

    pipe.progress_bar = progress_bar
    try:
        yield timer
    finally:
        del pipe.progress_bar
