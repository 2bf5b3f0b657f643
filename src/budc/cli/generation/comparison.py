"""A policy beside the full run and beside fewer steps of the same solver, from the same noise."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from budc.cli.generation.diffusers import Settings, TimedGeneration, generate
from budc.cli.output.media import Frames
from budc.cli.output.tables import MISSING, number, table
from budc.compiler.rollouts.metrics import latent_errors, psnrs
from budc.runtimes.diffusers.apply import applied
from budc.schema.policy import PolicyDocument
from budc.schema.report_names import FULL


@dataclass
class Method:
    """One way to generate, and what it made for each prompt."""

    name: str
    steps: int
    nfe: int
    policy: bool = False
    made: list[TimedGeneration] = field(default_factory=list)

    @property
    def label(self) -> str:
        """Name and cost, for pictures."""
        return f"{self.name}, {self.nfe} NFE"


def methods(document: PolicyDocument, *, compare: bool) -> list[Method]:
    """Return the policy alone, or between the full run and as many plain steps as it has evaluations."""
    steps, nfe = document.sampler.steps, document.budget.nfe
    policy = Method("policy", steps, nfe, policy=True)
    if not compare:
        return [policy]
    # A policy may have fewer steps than the run that it was measured against.
    full = next((b.nfe for b in document.quality.baselines if b.name == FULL), steps)
    return [Method("full run", full, full), policy, Method("fewer steps", nfe, nfe)]


def run_methods(
    pipe: Any,
    settings: Settings,
    chosen: Sequence[Method],
    prompts: Sequence[str],
    seed: int,
    policy: dict[str, Any],
) -> tuple[str, ...]:
    """Generate every prompt by every method, prompt i from the noise of `seed + i`.

    Args:
        pipe: the pipeline.
        settings: how to call it.
        chosen: the methods; what they make is appended to them.
        prompts: one generation each.
        seed: of the first prompt.
        policy: what `budc.runtimes.diffusers.apply.applied` is given beside the pipeline.

    Returns:
        What differed from the calibration, a sentence each.
    """
    differences: dict[str, None] = {}
    if len(chosen) > 1:
        # The first steps of a process are slower than the others, and would be charged to the first method.
        generate(pipe, settings, prompts[0], seed, 2, "warm-up")
    for method in chosen:
        with applied(pipe, **policy) if method.policy else _plain() as handle:
            for index, prompt in enumerate(prompts):
                label = f"{method.name} {index + 1}/{len(prompts)}"
                method.made.append(generate(pipe, settings, prompt, seed + index, method.steps, label))
                if handle is not None:
                    differences |= dict.fromkeys(handle.uncalibrated)
    return tuple(differences)


def _plain() -> AbstractContextManager[None]:
    return nullcontext()


def comparison_table(chosen: Sequence[Method]) -> str:
    """Return the methods' cost and their distance from the first one, the full run; means over the prompts."""
    reference = chosen[0]
    rows = []
    for method in chosen:
        seconds = statistics.fmean(made.seconds for made in method.made)
        row = [method.name, str(method.nfe), f"{seconds:.2f}"]
        if method is reference:
            row += [MISSING, MISSING]
        else:
            errors = latent_errors(_latents(method), _latents(reference))
            levels = psnrs(_frames(method), _frames(reference))
            row += [number(statistics.fmean(errors)), f"{statistics.fmean(levels):.1f}"]
        rows.append(row)
    return table(["method", "NFE", "seconds", "latent error", "PSNR dB"], rows)


def _latents(method: Method) -> Tensor:
    return torch.cat([made.latents for made in method.made])


def _frames(method: Method) -> Tensor:
    return torch.stack([torch.from_numpy(made.frames) for made in method.made])


def pictures(chosen: Sequence[Method]) -> list[list[tuple[str, Frames]]]:
    """Return for each prompt its clips with their labels; a method on its own needs none."""
    named = len(chosen) > 1
    clips = [[(method.label if named else "", made.frames) for made in method.made] for method in chosen]
    return [list(row) for row in zip(*clips, strict=True)]
