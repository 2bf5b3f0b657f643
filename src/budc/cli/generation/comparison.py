"""A policy compared with the full run and with fewer steps of the same solver, from the same noise."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from budc.cli.generation.pipeline import CallSettings, TimedGeneration, generate
from budc.cli.generation.request import FULL_RUN
from budc.cli.generation.stages import run_label, stage
from budc.cli.output.media import Frames
from budc.cli.output.tables import MISSING, number, table
from budc.compiler.rollouts.metrics import latent_errors, psnrs
from budc.runtimes.diffusers.apply import AppliedPolicy, applied
from budc.schema.policy import PolicyDocument
from budc.schema.report_names import FULL, LATENT_MSE

if TYPE_CHECKING:
    from budc.cli.generation.request import GenerationRequest


@dataclass
class Method:
    """One way to generate, and its result for each prompt."""

    name: str
    steps: int
    nfe: int
    policy: bool = False
    generations: list[TimedGeneration] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Of one denoising loop, mean over the prompts."""
        return statistics.fmean(generation.seconds for generation in self.generations)


def methods(document: PolicyDocument, *, compare: bool) -> list[Method]:
    """Return the policy alone, or between the full run and as many plain steps as it has evaluations."""
    steps, nfe = document.sampler.steps, document.budget.nfe
    policy = Method("policy", steps, nfe, policy=True)
    if not compare:
        return [policy]
    # A policy may have fewer steps than the run that it was measured against.
    full = next((b.nfe for b in document.quality.baselines if b.name == FULL), steps)
    return [Method(FULL_RUN, full, full), policy, Method("fewer steps", nfe, nfe)]


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


def comparison_table(methods: Sequence[Method]) -> str:
    """Return the methods' cost and their distance from the first one, the full run; means over the prompts."""
    reference = methods[0]
    rows = []
    for method in methods:
        row = [method.name, str(method.nfe), f"{method.seconds:.2f}"]
        if method is reference:
            row += [MISSING, MISSING]
        else:
            errors = latent_errors(_latents(method), _latents(reference))
            psnr = psnrs(_frames(method), _frames(reference))
            row += [number(statistics.fmean(errors)), f"{statistics.fmean(psnr):.1f}"]
        rows.append(row)
    return table(["method", "NFE", "seconds", LATENT_MSE, "PSNR dB"], rows)


def _latents(method: Method) -> Tensor:
    return torch.cat([generation.latents for generation in method.generations])


def _frames(method: Method) -> Tensor:
    return torch.stack([torch.from_numpy(generation.frames) for generation in method.generations])


def pictures(methods: Sequence[Method], prompts: Sequence[str]) -> list[list[tuple[str, Frames]]]:
    """Return for each prompt its clips with their labels; a single method needs none.

    A label has the method, its cost, the seconds of its loop, and how far it is from the first, the full run, which
    has the prompt.
    """
    if len(methods) == 1:
        return [[("", generation.frames)] for generation in methods[0].generations]
    return [
        [(_label(method, methods[0], index, prompt), method.generations[index].frames) for method in methods]
        for index, prompt in enumerate(prompts)
    ]


def _label(method: Method, reference: Method, index: int, prompt: str) -> str:
    own, full = method.generations[index], reference.generations[index]
    cost = f"{method.name}, {method.nfe} NFE, {own.seconds:.2f} s"
    if method is reference:
        return f"{cost}\n{prompt}"
    (psnr,) = psnrs(torch.from_numpy(own.frames)[None], torch.from_numpy(full.frames)[None])
    return f"{cost}\nPSNR {psnr:.1f} dB"
