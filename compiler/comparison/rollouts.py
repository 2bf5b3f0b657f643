"""Rollouts of what no policy can say: a rule that decides during a rollout, a learned solver, average velocities."""

from __future__ import annotations

import torch
from torch import Tensor

from budc.compiler.comparison import meancache
from budc.compiler.comparison.dicache import roll_by_probe
from budc.compiler.comparison.fitted import Fitted, LearnedSolver
from budc.compiler.comparison.setting import ModelSetting, Setting
from budc.compiler.comparison.teacache import roll_by
from budc.compiler.denoisers.conditioning import Conditioning
from budc.compiler.rollouts.policies import full_policy
from budc.compiler.rollouts.policy import rollout_policy


def roll_fitted(setting: Setting, fitted: Fitted, conditions: Conditioning) -> tuple[Tensor, Tensor]:
    """Return the final latents (N, ...), and the evaluations per branch of every sample (N,)."""
    if fitted.averages is not None:
        return meancache.roll_out(setting, fitted.averages.spans, conditions)
    if fitted.solver is not None:
        return _roll_solver(setting, fitted.solver, conditions)
    assert isinstance(setting, ModelSetting)
    if fitted.probe is not None:
        return roll_by_probe(setting, fitted.probe, conditions)
    assert fitted.rule is not None
    return roll_by(setting, fitted.rule, conditions)


def _roll_solver(setting: Setting, solver: LearnedSolver, conditions: Conditioning) -> tuple[Tensor, Tensor]:
    form = solver.form()
    policy = full_policy(form.steps, setting.branches)
    latents = rollout_policy(setting.network_of(conditions), form, policy)
    return latents, torch.full((len(conditions),), float(form.steps), dtype=torch.float64)
