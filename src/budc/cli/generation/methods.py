"""The methods of a comparison, what they generated, and how far that is from the full run; in numpy alone."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from budc.cli.generation.request import FULL_RUN
from budc.cli.output.media import Frames
from budc.cli.output.tables import MISSING, number, table
from budc.schema.policy import PolicyDocument
from budc.schema.psnr import psnr_of
from budc.schema.report_names import FULL, LATENT_MSE


class Generated(Protocol):
    """What one run generated."""

    @property
    def frames(self) -> Frames:
        """(F, H, W, 3) in 0..1."""

    @property
    def latents(self) -> Any:
        """The final latents (1, ...), float32, on the CPU: an array or a tensor."""

    @property
    def seconds(self) -> float:
        """Time of the denoising loop."""


@dataclass
class Method:
    """One way to generate, and its result for each prompt."""

    name: str
    steps: int
    nfe: int
    policy: bool = False
    generations: list[Generated] = field(default_factory=list)

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


def comparison_table(methods: Sequence[Method]) -> str:
    """Return the methods' cost and their distance from the first one, the full run; means over the prompts."""
    reference = methods[0]
    rows = []
    for method in methods:
        row = [method.name, str(method.nfe), f"{method.seconds:.2f}"]
        if method is reference:
            row += [MISSING, MISSING]
        else:
            pairs = list(zip(method.generations, reference.generations, strict=True))
            errors = [_error(own.latents, full.latents) for own, full in pairs]
            psnrs = [_psnr(own, full) for own, full in pairs]
            row += [number(statistics.fmean(errors)), f"{statistics.fmean(psnrs):.1f}"]
        rows.append(row)
    return table(["method", "NFE", "seconds", LATENT_MSE, "PSNR dB"], rows)


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
    return f"{cost}\nPSNR {_psnr(own, full):.1f} dB"


def _psnr(own: Generated, full: Generated) -> float:
    return psnr_of(_error(own.frames, full.frames))


def _error(actual: Any, expected: Any) -> float:
    """Return the mean squared difference, in float64."""
    difference: NDArray[np.float64] = np.asarray(actual, np.float64) - np.asarray(expected, np.float64)
    return float(np.square(difference).mean())
