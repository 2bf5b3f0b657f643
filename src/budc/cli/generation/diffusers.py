"""One generation through a pipeline: its frames, its final latents and the seconds of its denoising loop."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from budc.cli.output.media import Frames
from budc.progress import Bar, progress

if TYPE_CHECKING:
    from budc.policies.profile import ModelProfile
    from budc.schema.policy import PolicyDocument


@dataclass(frozen=True)
class TimedGeneration:
    """What one run of the pipeline made."""

    frames: Frames
    latents: Tensor
    """The final latents, (1, ...), float32 on the CPU."""
    seconds: float
    """Of the denoising loop: no text encoding, no decoding."""


@dataclass(frozen=True)
class Settings:
    """How a policy's document wants its pipeline called."""

    options: dict[str, Any]

    @classmethod
    def of(cls, pipe: Any, document: PolicyDocument, profile: ModelProfile) -> Settings:
        """Return the settings that `document` was calibrated for, as far as this pipeline takes them."""
        shape = document.shape
        wanted = {
            "negative_prompt": profile.prompts.negative,
            "height": shape.height,
            "width": shape.width,
            "num_frames": shape.frames,
            "max_sequence_length": shape.text_tokens,
            "guidance_scale": document.sampler.guidance,
        }
        for expert in document.sampler.experts:
            wanted["guidance_scale_2"] = expert.guidance
        taken = inspect.signature(type(pipe).__call__).parameters
        if document.sampler.guidance_rule == "classifier-free" and "true_cfg_scale" in taken:
            # Qwen-Image: its guidance_scale is for a distilled edition.
            wanted["true_cfg_scale"] = wanted.pop("guidance_scale")
        return cls({name: value for name, value in wanted.items() if name in taken and value is not None})


def generate(
    pipe: Any, settings: Settings, prompt: str, seed: int, steps: int, label: str
) -> TimedGeneration:
    """Run the pipeline once, from the CPU noise of `seed`, with progress on stderr.

    Raises:
        BudcError: a policy is applied and refuses the run.
    """
    final: list[Tensor] = []

    def keep(_pipe: Any, _step: int, _timestep: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        final[:] = [tensors["latents"]]
        return tensors

    with _timed(pipe, label) as clock:
        output = pipe(
            prompt=prompt,
            num_inference_steps=steps,
            generator=torch.Generator().manual_seed(seed),
            callback_on_step_end=keep,
            callback_on_step_end_tensor_inputs=["latents"],
            output_type="np",
            return_dict=False,
            **settings.options,
        )[0]
    frames = np.asarray(output, dtype=np.float32)
    # A video pipeline returns (1, F, H, W, 3), an image pipeline (1, H, W, 3).
    return TimedGeneration(frames[0] if frames.ndim == 5 else frames, final[0].float().cpu(), clock.seconds)


class _Clock:
    """The pipeline's progress bar for one run: it opens and closes exactly around the denoising loop."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.seconds = 0.0

    @contextmanager
    def __call__(self, total: int) -> Iterator[_Steps]:
        with progress(self.label, total) as bar:
            _settle()
            started = time.perf_counter()
            yield _Steps(bar)
            _settle()
            self.seconds = time.perf_counter() - started


class _Steps:
    """What a pipeline does with its progress bar."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar

    def update(self, count: int = 1) -> None:
        for _ in range(count):
            self._bar.advance()


@contextmanager
def _timed(pipe: Any, label: str) -> Iterator[_Clock]:
    clock = _Clock(label)
    pipe.progress_bar = clock
    try:
        yield clock
    finally:
        # Back to the class's own.
        del pipe.progress_bar


def _settle() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
