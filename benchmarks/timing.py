"""Wall-clock time of the denoising loop, as the pipeline runs it: text encoded before, nothing decoded after."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from budc.cli.extras import quiet_libraries
from budc.cli.pipelines import load_pipeline
from budc.policies.profile import find_weights, load_profile
from budc.schema.policy import PolicyDocument


def load(document: PolicyDocument) -> tuple[Any, Any]:
    """Load the pipeline that an artifact's profile names; return it with its model folder."""
    quiet_libraries()
    profile = load_profile(document.model.profile)
    folder = find_weights(profile, None)
    pipe = load_pipeline(profile, folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe, folder


def denoiser(pipe: Any, document: PolicyDocument, prompt: str, seed: int) -> Callable[[int], None]:
    """Return a function that runs the denoising loop once, with as many steps as it is given."""
    shape = document.shape
    cond, uncond = pipe.encode_prompt(prompt, negative_prompt="", max_sequence_length=shape.text_tokens)

    def run(steps: int) -> None:
        pipe(
            prompt_embeds=cond,
            negative_prompt_embeds=uncond,
            height=shape.height,
            width=shape.width,
            num_frames=shape.frames,
            num_inference_steps=steps,
            guidance_scale=document.sampler.guidance,
            generator=torch.Generator().manual_seed(seed),
            output_type="latent",
        )

    return run


def seconds(function: Callable[[], object], repeats: int) -> float:
    """Median of several timings, after one run that is not counted."""
    function()
    taken = []
    for _ in range(repeats):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        started = time.perf_counter()
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)
