"""Wall-clock time of the denoising loop, as the pipeline runs it: text encoded before, nothing decoded after."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import torch

from budc.cli.dependencies import quiet_libraries
from budc.cli.generation.pipeline import CallSettings
from budc.policies.deployment import calibrated
from budc.policies.profile import find_weights, load_profile
from budc.runtimes.diffusers.pipeline import load_pipeline
from budc.schema.policy import PolicyDocument


def load(document: PolicyDocument) -> tuple[Any, Any]:
    """Load the pipeline that an artifact's profile names; return it with its model folder."""
    quiet_libraries()
    profile = load_profile(document.pipeline().profile)
    folder = find_weights(profile, None)
    pipe = load_pipeline(profile, weights=folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe, folder


def arguments(pipe: Any, document: PolicyDocument, prompt: str) -> dict[str, Any]:
    """Return what a Wan or FLUX pipeline is called with, without steps and noise; the prompt is encoded here."""
    settings = CallSettings.of(
        pipe, document, calibrated(load_profile(document.pipeline().profile), document)
    ).arguments
    tokens = {"max_sequence_length": settings.pop("max_sequence_length")}
    if document.model.pipeline_class == "FluxPipeline":
        text, pooled, _ = pipe.encode_prompt(prompt, **tokens)
        encoded = {"prompt_embeds": text, "pooled_prompt_embeds": pooled}
    else:
        cond, uncond = pipe.encode_prompt(prompt, negative_prompt=settings.pop("negative_prompt"), **tokens)
        encoded = {"prompt_embeds": cond, "negative_prompt_embeds": uncond}
    settings.pop("negative_prompt", None)
    return settings | encoded | {"output_type": "latent", "return_dict": False}


def for_embeddings(document: PolicyDocument) -> PolicyDocument:
    """Return a policy that also runs where the negative prompt comes as embeddings, in which it cannot be checked."""
    sampler = msgspec.structs.replace(document.sampler, negative_prompt=None)
    return msgspec.structs.replace(document, sampler=sampler)


def denoiser(pipe: Any, document: PolicyDocument, prompt: str, seed: int) -> Callable[[int], None]:
    """Return a function that runs the denoising loop once, with the given number of steps."""
    given = arguments(pipe, document, prompt)

    def run(steps: int) -> None:
        pipe(**given, num_inference_steps=steps, generator=torch.Generator().manual_seed(seed))

    return run


@contextmanager
def forward_inputs(pipe: Any, branches: int) -> Iterator[list[dict[str, Any]]]:
    """Collect what the pipeline calls its transformer with in one step of a run, of every branch."""
    seen: list[dict[str, Any]] = []

    def collect(_module: object, _args: object, inputs: dict[str, Any]) -> None:
        if len(seen) < branches:
            seen.append(inputs)

    hook = pipe.transformer.register_forward_pre_hook(collect, with_kwargs=True)
    try:
        yield seen
    finally:
        hook.remove()


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
