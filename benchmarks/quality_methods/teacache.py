"""TeaCache (arXiv 2411.19108): reuse until the accumulated change of the modulated input passes a threshold.

    d_k = polynomial(‖m_k - m_{k-1}‖₁ / ‖m_{k-1}‖₁),      compute where Σ d since the last computation ≥ threshold

m depends on the timestep. With `input`, as in the paper, it is the first block's normalised and modulated hidden state,
which differs between samples. With `embedding`, as in its implementation for Wan, it is the timestep's projected
embedding alone, which is the same for all samples; this exists for Wan only. The polynomial of
degree 4 maps that change to the relative change of the network's output and is fitted on the full run of the
calibration prompts, branches together. The first and the last step are always computed.

The threshold is bisected until the mean NFE over the calibration prompts meets the budget.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from budc.compiler.denoisers.conditioning import Condition
from quality_methods.dynamic import bisect, roll
from quality_methods.outcome import Outcome
from quality_methods.setting import Samples, Setting

DEGREE = 4
Signal = Callable[[Tensor, Tensor, Condition], Tensor]


def signal(setting: Setting, kind: Literal["input", "embedding"]) -> Signal:
    """Return m(latents (N, ...), timestep, condition) as (N, size)."""
    if setting.model.profile.pipeline_class == "FluxPipeline":
        assert kind == "input"
        return _flux(setting)
    return _wan(setting, kind)


def _wan(setting: Setting, kind: Literal["input", "embedding"]) -> Signal:
    network = setting.model.denoiser
    embedder, first = network.condition_embedder, network.blocks[0]

    def embedding(latents: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        times = embedder.timesteps_proj(timestep.expand(len(latents)))
        return embedder.time_proj(embedder.act_fn(embedder.time_embedder(times)))

    def modulated(latents: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        hidden = network.patch_embedding(latents).flatten(2).transpose(1, 2)
        table = first.scale_shift_table + embedding(latents, timestep, condition).unflatten(1, (6, -1))
        shift, scale = table[:, 0:1], table[:, 1:2]
        return (first.norm1(hidden) * (1 + scale) + shift).flatten(1)

    return modulated if kind == "input" else embedding


def _flux(setting: Setting) -> Signal:
    network = setting.model.denoiser

    def modulated(latents: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        given = setting.model.adapter.inputs(condition, latents, timestep)
        embedded = network.time_text_embed(
            1000 * given["timestep"], 1000 * given["guidance"], given["pooled_projections"]
        )
        hidden = network.x_embedder(given["hidden_states"])
        return network.transformer_blocks[0].norm1(hidden, emb=embedded)[0].flatten(1)

    return modulated


def relative_change(now: Tensor, before: Tensor) -> Tensor:
    """Return ‖now - before‖₁ / ‖before‖₁ of every sample, (N,)."""
    return (now - before).flatten(1).abs().mean(1) / before.flatten(1).abs().mean(1)


@torch.no_grad()
def fit(setting: Setting, measure: Signal) -> np.ndarray:
    """Return the polynomial from the change of m to the change of the output, on the full run."""
    states, conditions = setting.calibration.run.states, setting.calibration.conditions
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []
    before: dict[str, Tensor] = {}
    last: Tensor | None = None
    for step, timestep in enumerate(setting.form.timesteps.float()):
        now = measure(states[step], timestep, conditions.embeddings[setting.branches[0]])
        for branch, condition in conditions.embeddings.items():
            velocity, _ = setting.denoiser.compute(states[step], timestep, condition)
            if last is not None:
                inputs.append(relative_change(now, last))
                outputs.append(relative_change(velocity, before[branch]))
            before[branch] = velocity
        last = now
    return np.polyfit(torch.cat(inputs).double().numpy(), torch.cat(outputs).double().numpy(), DEGREE)


class TeaCache:
    """The rule during one rollout; m is taken from the first branch, so that all branches decide alike."""

    def __init__(
        self, setting: Setting, measure: Signal, polynomial: np.ndarray, threshold: float, samples: Samples
    ) -> None:
        self._setting, self._measure = setting, measure
        self._polynomial, self._threshold = polynomial, threshold
        self._condition = samples.conditions.embeddings[setting.branches[0]]
        self._accumulated = torch.zeros(len(samples), dtype=torch.float64)
        self._before: Tensor | None = None

    def __call__(self, step: int, latents: Tensor, timestep: Tensor) -> Mapping[str, Tensor]:
        """Return which samples compute."""
        now = self._measure(latents, timestep, self._condition)
        if self._before is None or step == self._setting.form.steps - 1:
            chosen = torch.ones(len(latents), dtype=torch.bool)
        else:
            change = relative_change(now, self._before).double().numpy()
            self._accumulated += torch.from_numpy(np.polyval(self._polynomial, change))
            chosen = self._accumulated >= self._threshold
        self._accumulated[chosen] = 0.0
        self._before = now
        return dict.fromkeys(self._setting.branches, chosen)


def teacache(setting: Setting, nfe: int, kind: Literal["input", "embedding"]) -> Outcome:
    """Fit, bisect, run."""
    measure, forwards = signal(setting, kind), setting.full_forwards
    polynomial = fit(setting, measure)

    def run(samples: Samples, threshold: float) -> tuple[Tensor, Tensor]:
        return roll(setting, samples, TeaCache(setting, measure, polynomial, threshold, samples))

    def mean_nfe(threshold: float) -> float:
        nonlocal forwards
        counts = run(setting.calibration, threshold)[1]
        forwards += round(float(counts.sum()) * len(setting.branches))
        return float(counts.mean())

    threshold = bisect(mean_nfe, nfe, high=float(setting.form.steps))
    latents, counts = run(setting.held_out, threshold)
    chosen = {"threshold": threshold, "polynomial": polynomial.tolist(), "signal": kind}
    return Outcome(latents, tuple(counts.tolist()), forwards, chosen=chosen)
