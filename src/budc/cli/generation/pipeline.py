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

from budc.cli.generation.stages import stage
from budc.cli.output.media import Frames
from budc.policies.conditioning_images import open_image
from budc.progress import Bar, progress
from budc.runtimes.diffusers.call_arguments import call_arguments

if TYPE_CHECKING:
    from budc.policies.profile import ModelProfile
    from budc.policies.samples import SampleImage
    from budc.schema.policy import PolicyDocument


@dataclass(frozen=True)
class TimedGeneration:
    """The result of one run of the pipeline."""

    frames: Frames
    latents: Tensor
    """The final latents, (1, ...), float32 on the CPU."""
    seconds: float
    """Of the denoising loop: no text encoding, no decoding."""


@dataclass(frozen=True)
class CallSettings:
    """The arguments that a policy's document prescribes for a call of its pipeline."""

    arguments: dict[str, Any]

    @classmethod
    def of(cls, pipe: Any, document: PolicyDocument, profile: ModelProfile) -> CallSettings:
        """Return the settings that `document` was calibrated for, those that this pipeline takes."""
        arguments = call_arguments(pipe, document)
        # Methods differ in their steps.
        del arguments["num_inference_steps"]
        if "negative_prompt" in inspect.signature(type(pipe).__call__).parameters:
            arguments["negative_prompt"] = profile.prompts.negative
        return cls(arguments)

    def starting_from(self, image: SampleImage | None) -> CallSettings:
        """Return the settings of a call that is given this image, if there is one.

        Raises:
            UsageError: it cannot be read any more.
        """
        return self if image is None else CallSettings(self.arguments | {"image": open_image(image)})


def generate(
    pipe: Any, settings: CallSettings, prompt: str, seed: int, steps: int, label: str
) -> TimedGeneration:
    """Run the pipeline once, from the CPU noise of `seed`, with stages and progress on stderr.

    Raises:
        BudcError: a policy is applied and refuses the run.
    """
    final: list[Tensor] = []

    def store_latents(
        _pipe: Any, _step: int, _timestep: Any, tensors: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        final[:] = [tensors["latents"]]
        return tensors

    stage("encode", label)
    with _timed(pipe, label) as clock:
        output = pipe(
            prompt=prompt,
            num_inference_steps=steps,
            generator=torch.Generator().manual_seed(seed),
            callback_on_step_end=store_latents,
            callback_on_step_end_tensor_inputs=["latents"],
            output_type="np",
            return_dict=False,
            **settings.arguments,
        )[0]
    frames = np.asarray(output, dtype=np.float32)
    # A video pipeline returns (1, F, H, W, 3), an image pipeline (1, H, W, 3).
    return TimedGeneration(frames[0] if frames.ndim == 5 else frames, final[0].float().cpu(), clock.seconds)


class _Clock:
    """The pipeline's progress bar for one run, which it opens and closes exactly around the denoising loop."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.seconds = 0.0

    @contextmanager
    def __call__(self, total: int) -> Iterator[_ProgressBar]:
        stage("denoise", self.label)
        with progress(self.label, total) as bar:
            _synchronize()
            started = time.perf_counter()
            yield _ProgressBar(bar)
            _synchronize()
            self.seconds = time.perf_counter() - started
        stage("decode", self.label)


class _ProgressBar:
    """The one method of a progress bar that pipelines call."""

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
        # The class's own progress bar shows again.
        del pipe.progress_bar


def _synchronize() -> None:
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
