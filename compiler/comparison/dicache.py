"""DiCache (arXiv 2508.17356): the first block, run at every step, says whether the others may be skipped.

    d_k = ‖p_k - p_{k-1}‖₁ / ‖p_{k-1}‖₁        p: the hidden state after the probe; compute where Σ d ≥ threshold
    r̂_k = r_i + γ (r_j - r_i),   γ = ‖q_k - q_i‖₁ / ‖q_j - q_i‖₁        i < j: the two newest computed steps
    q: what the probe adds to its input; γ is kept within 1 and 1.5 (FLUX) or 2 (Wan)

Each sample and each guidance branch decides for itself. A step that computes goes on from the probe, so it costs one
forward; a step that reuses costs the probe's share of one, by parameters of the blocks. Evaluations are counted so:
on a transformer of few blocks the probes alone take more than a small budget, and the method cannot run.

The published settings also compute the first fifth of the steps; here the first step alone is protected, since the
budgets compared are smaller. The threshold is bisected until the mean NFE over the calibration prompts is the budget.
"""

from __future__ import annotations

import torch
from torch import Tensor

from budc.compiler.comparison.dynamic import bisect
from budc.compiler.comparison.fitted import Fitted, ProbeRule
from budc.compiler.comparison.probe import Probe
from budc.compiler.comparison.rivals import CannotRun
from budc.compiler.comparison.setting import ModelSetting
from budc.compiler.comparison.teacache import relative_change
from budc.compiler.denoisers.batched import BatchedDenoiser
from budc.compiler.denoisers.conditioning import Conditioning

DEPTH = 1
HIGHEST = 10.0
"""A threshold that no sum of changes reaches in one run."""
BATCH = 16


def largest_step(setting: ModelSetting) -> float:
    """Return the bound of γ."""
    return 1.5 if setting.model.profile.pipeline_class == "FluxPipeline" else 2.0


def extrapolation(now: Tensor, newest: Tensor, older: Tensor, most: float) -> Tensor:
    """Return γ of every sample, (N,), from what the probe adds now and added at the two newest computed steps."""
    moved = (now - older).flatten(1).abs().mean(1)
    between = (newest - older).flatten(1).abs().mean(1)
    return (moved / between).nan_to_num(1.0).clamp(1.0, most)


class _Branch:
    """One guidance branch during a rollout: what each sample has cached, and how far its probe has moved."""

    def __init__(self, setting: ModelSetting, rule: ProbeRule, conditions: Conditioning, branch: str) -> None:
        self.computed = torch.zeros(len(conditions), dtype=torch.float64)
        self._probe, self._rule, self._branch = Probe(setting, rule.depth), rule, branch
        self._setting, self._conditions = setting, conditions
        self._moved = torch.zeros(len(conditions), dtype=torch.float64)
        self._before: Tensor | None = None
        # Newest first: residuals of the trunk and of the probe.
        self._cached: list[Tensor] = []
        self._probed: list[Tensor] = []

    def velocity(self, step: int, latents: Tensor, timestep: Tensor) -> Tensor:
        """Return the velocity (N, ...) of a step, computed or reused sample by sample."""
        entering, shallow = self._shallow(latents, timestep)
        if self._before is not None:
            self._moved += relative_change(shallow, self._before).double()
        computes = self._moved >= self._rule.threshold
        if self._before is None:
            computes = torch.ones_like(computes)
        self._before = shallow
        self._moved[computes] = 0.0
        added, velocity = shallow - entering, torch.empty_like(latents)
        fresh, reused = (mask.nonzero()[:, 0] for mask in (computes, ~computes))
        if len(reused):
            velocity[reused] = self._reused(reused, added[reused], latents[reused], timestep)
        if len(fresh):
            velocity[fresh] = self._fresh(fresh, added[fresh], latents[fresh], timestep)
        self.computed += computes.double()
        return velocity

    def _shallow(self, latents: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor]:
        entering, shallow = [], []
        for rows in torch.arange(len(latents)).split(BATCH):
            condition = self._conditions.rows(rows.tolist()).embeddings[self._branch]
            before, after = self._probe(latents[rows], timestep, condition)
            entering.append(before)
            shallow.append(after)
        return torch.cat(entering), torch.cat(shallow)

    def _network(self, rows: Tensor) -> BatchedDenoiser:
        return self._setting.network_of(self._conditions.rows(rows.tolist()))

    def _fresh(self, rows: Tensor, added: Tensor, latents: Tensor, timestep: Tensor) -> Tensor:
        velocity, residual = self._network(rows).compute(self._branch, latents, timestep)
        for cached, new in ((self._cached, residual.float()), (self._probed, added)):
            if not cached:
                # The first step, which all samples compute: there is one value, so nothing is extrapolated.
                cached += [new, new.clone()]
                continue
            cached[1][rows] = cached[0][rows]
            cached[0][rows] = new
        return velocity

    def _reused(self, rows: Tensor, added: Tensor, latents: Tensor, timestep: Tensor) -> Tensor:
        newest, older = (cached[rows] for cached in self._cached)
        newest_probe, older_probe = (cached[rows] for cached in self._probed)
        step = extrapolation(added, newest_probe, older_probe, self._rule.largest_step)
        residual = older + step.view(-1, *[1] * (older.ndim - 1)).to(older.dtype) * (newest - older)
        return self._network(rows).reuse(self._branch, residual, latents, timestep)


@torch.no_grad()
def roll_by_probe(setting: ModelSetting, rule: ProbeRule, conditions: Conditioning) -> tuple[Tensor, Tensor]:
    """Return the final latents (N, ...) under the rule, and the evaluations per branch of every sample (N,).

    A probe of a step that reuses counts as its share of an evaluation.
    """
    form, noise, guided = setting.form, conditions.noise, list[Tensor]()
    branches = {name: _Branch(setting, rule, conditions, name) for name in setting.branches}
    for step, timestep in enumerate(form.timesteps.float()):
        latents = form.latents(step, noise, guided)
        velocities = {name: branch.velocity(step, latents, timestep) for name, branch in branches.items()}
        guided.append(setting.denoiser.guide(velocities, timestep))
    computed = torch.stack([branch.computed for branch in branches.values()]).mean(0)
    share = Probe(setting, rule.depth).share
    return form.latents(form.steps, noise, guided), computed + (form.steps - computed) * share


def dicache(setting: ModelSetting, nfe: int) -> Fitted:
    """Bisect the threshold.

    Raises:
        CannotRun: the probes alone take more evaluations than the budget.
    """
    steps, share = setting.form.steps, Probe(setting, DEPTH).share
    least = 1 + (steps - 1) * share
    if least > nfe:
        raise CannotRun(
            f"its probe is {share:.2g} of a forward at each of {steps} steps: {least:.1f} evaluations at the least"
        )
    forwards = 0

    def rule(threshold: float) -> ProbeRule:
        return ProbeRule(depth=DEPTH, threshold=threshold, largest_step=largest_step(setting))

    def mean_nfe(threshold: float) -> float:
        nonlocal forwards
        counts = roll_by_probe(setting, rule(threshold), setting.calibration.conditions)[1]
        forwards += round(float(counts.sum()) * len(setting.branches))
        return float(counts.mean())

    threshold = bisect(mean_nfe, nfe, high=HIGHEST)
    return Fitted(probe=rule(threshold), forwards=forwards, chosen={"threshold": threshold, "share": share})
