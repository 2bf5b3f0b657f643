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

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from budc.compiler.comparison.dynamic import bisect, roll
from budc.compiler.comparison.fitted import Fitted, ThresholdRule
from budc.compiler.comparison.setting import ModelSetting
from budc.compiler.denoisers.conditioning import Condition, Conditioning, map_condition

DEGREE = 4
PIPELINES = ("FluxPipeline", "WanPipeline")
"""Whose modulated input can be had without running the network."""
Signal = Callable[[Tensor, Tensor, Condition], Tensor]


def signal(setting: ModelSetting, kind: Literal["input", "embedding"]) -> Signal:
    """Return m(latents (N, ...), timestep, condition) as (N, size), on the CPU."""
    device = setting.model.device
    on_device = (
        _flux(setting) if setting.model.profile.pipeline_class == "FluxPipeline" else _wan(setting, kind)
    )

    @torch.no_grad()
    def measure(latents: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        moved = map_condition(condition, lambda tensor: tensor.to(device))
        return on_device(latents.to(device), timestep.to(device), moved).float().cpu()

    return measure


def _wan(setting: ModelSetting, kind: Literal["input", "embedding"]) -> Signal:
    def embedding(latents: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        # Asked for each time: between two calls the denoiser may have left the device.
        embedder: Any = setting.model.denoiser.condition_embedder
        times = embedder.timesteps_proj(timestep.expand(len(latents)))
        times = times.to(embedder.time_proj.weight.dtype)
        projected: Tensor = embedder.time_proj(embedder.act_fn(embedder.time_embedder(times)))
        return projected

    def modulated(latents: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        network: Any = setting.model.denoiser
        first = network.blocks[0]
        hidden = network.patch_embedding(latents.to(network.dtype)).flatten(2).transpose(1, 2)
        table = first.scale_shift_table + embedding(latents, timestep, condition).unflatten(1, (6, -1))
        shift, scale = table[:, 0:1], table[:, 1:2]
        scaled: Tensor = first.norm1(hidden.float()) * (1 + scale) + shift
        return scaled.flatten(1)

    return modulated if kind == "input" else embedding


def _flux(setting: ModelSetting) -> Signal:
    def modulated(latents: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        network: Any = setting.model.denoiser
        given = setting.model.adapter.inputs(condition, latents, timestep)
        embedded = network.time_text_embed(
            1000 * given["timestep"], 1000 * given["guidance"], given["pooled_projections"]
        )
        hidden = network.x_embedder(given["hidden_states"])
        normed: Tensor = network.transformer_blocks[0].norm1(hidden, emb=embedded)[0]
        return normed.flatten(1)

    return modulated


def relative_change(now: Tensor, before: Tensor) -> Tensor:
    """Return ‖now - before‖₁ / ‖before‖₁ of every sample, (N,)."""
    return (now - before).flatten(1).abs().mean(1) / before.flatten(1).abs().mean(1)


@torch.no_grad()
def fit(setting: ModelSetting, measure: Signal) -> list[float]:
    """Return the polynomial from the change of m to the change of the output, on the full run."""
    samples = setting.calibration
    network = setting.network(samples)
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []
    before: dict[str, Tensor] = {}
    last: Tensor | None = None
    for step, timestep in enumerate(setting.form.timesteps.float()):
        latents = samples.run.state(step).float()
        now = measure(latents, timestep, samples.conditions.embeddings[setting.branches[0]])
        for branch in setting.branches:
            velocity, _ = network.compute(branch, latents, timestep)
            if last is not None:
                inputs.append(relative_change(now, last))
                outputs.append(relative_change(velocity, before[branch]))
            before[branch] = velocity
        last = now
    x, y = torch.cat(inputs).double().numpy(), torch.cat(outputs).double().numpy()
    return [float(value) for value in np.polyfit(x, y, DEGREE)]


class TeaCache:
    """The rule during one rollout; m is taken from the first branch, so that all branches decide alike."""

    def __init__(
        self, setting: ModelSetting, measure: Signal, rule: ThresholdRule, conditions: Conditioning
    ) -> None:
        self._setting, self._measure, self._rule = setting, measure, rule
        self._condition = conditions.embeddings[setting.branches[0]]
        self._accumulated = torch.zeros(len(conditions), dtype=torch.float64)
        self._before: Tensor | None = None

    def __call__(self, step: int, latents: Tensor, timestep: Tensor) -> Tensor:
        """Return which samples compute."""
        now = self._measure(latents, timestep, self._condition)
        if self._before is None or step == self._setting.form.steps - 1:
            chosen = torch.ones(len(latents), dtype=torch.bool)
        else:
            change = relative_change(now, self._before).double().numpy()
            self._accumulated += torch.from_numpy(np.polyval(np.array(self._rule.polynomial), change))
            chosen = self._accumulated >= self._rule.threshold
        self._accumulated[chosen] = 0.0
        self._before = now
        return chosen


def roll_by(setting: ModelSetting, rule: ThresholdRule, conditions: Conditioning) -> tuple[Tensor, Tensor]:
    """Return the final latents (N, ...) under the rule, and the evaluations per branch of every sample (N,)."""
    measure = signal(setting, "input" if rule.signal == "input" else "embedding")
    return roll(setting, conditions, TeaCache(setting, measure, rule, conditions))


def teacache(setting: ModelSetting, nfe: int, kind: Literal["input", "embedding"]) -> Fitted:
    """Fit the polynomial and bisect the threshold."""
    # One full run can measure the changes as well; here it is run again, which is not counted.
    forwards = setting.full_forwards
    polynomial = fit(setting, signal(setting, kind))

    def rule(threshold: float) -> ThresholdRule:
        return ThresholdRule(signal=kind, polynomial=polynomial, threshold=threshold)

    def mean_nfe(threshold: float) -> float:
        nonlocal forwards
        counts = roll_by(setting, rule(threshold), setting.calibration.conditions)[1]
        forwards += round(float(counts.sum()) * len(setting.branches))
        return float(counts.mean())

    threshold = bisect(mean_nfe, nfe, high=float(setting.form.steps))
    chosen = {"threshold": threshold, "polynomial": polynomial, "signal": kind}
    return Fitted(rule=rule(threshold), forwards=forwards, chosen=chosen)
