"""Policy, full run and fewer steps of the same solver on a diffusers pipeline, from the same noise."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from budc.cli.generation.methods import Method
from budc.cli.generation.pipeline import CallSettings, generate
from budc.cli.generation.stages import run_label, stage
from budc.runtimes.diffusers.apply import AppliedPolicy, applied

if TYPE_CHECKING:
    from budc.cli.generation.request import GenerationRequest


def run_methods(pipe: Any, request: GenerationRequest, methods: Sequence[Method]) -> tuple[str, ...]:
    """Generate every prompt by every method, whose `generations` are filled.

    Returns:
        What differed from the calibration, a sentence each.
    """
    call = CallSettings.of(pipe, request.document, request.profile)
    settings = [call.starting_from(image) for image in request.images]
    prompts, seed = request.prompts, request.seed
    differences: dict[str, None] = {}
    if len(methods) > 1:
        # The first steps of a process are slower than the others, and would be charged to the first method.
        generate(pipe, settings[0], prompts[0], seed, 2, "warm-up")
    for method in methods:
        if method.policy:
            stage("verify", "the weights in memory")
        with _applied(pipe, request) if method.policy else nullcontext() as policy:
            for index, prompt in enumerate(prompts):
                label = run_label(method.name, index, len(prompts))
                method.generations.append(
                    generate(pipe, settings[index], prompt, seed + index, method.steps, label)
                )
                if policy is not None:
                    differences |= dict.fromkeys(policy.uncalibrated)
    return tuple(differences)


def _applied(pipe: Any, request: GenerationRequest) -> AbstractContextManager[AppliedPolicy]:
    return applied(
        pipe,
        request.artifact,
        trust=request.trust,
        allow_unsigned=request.allow_unsigned,
        allow_uncalibrated=request.allow_uncalibrated,
        weights_dir=request.weights,
        digests=request.digests,
    )
