"""Solver checks: what a scheduler must be, so that a policy can be searched on its linear form.

- It evaluates the network once a step.
- The network's output is the velocity of flow matching: where that is a constant v, the solver goes along the straight
  path x_k = x_0 + (sigma_k - sigma_0) · v. Networks that predict noise, samples or the v of variance-preserving
  diffusion have other paths, and their schedulers scale inputs that a rollout does not scale.
- It draws no noise of its own, and its states are linear in the velocities and finite.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from budc.runtimes.sampling.schedulers import check_order
from budc.schema.errors import UnsupportedModel
from budc.schema.foreign_error import reason_of

Run = Callable[[Tensor, Tensor], Tensor]
"""All states (steps + 1, width) of a run from sigmas and inputs, each (steps + 1, ...)."""

_TOLERANCE = 1e-6
_STRAIGHT = 1e-4
"""How far a state may be off the straight path: solvers step in single precision."""
_BELOW_ONE = 0.9999
_USABLE = "flow-matching Euler, or UniPC or DPM++ with flow sigmas and default settings"


def check_settings(scheduler: Any) -> None:
    """Refuse a scheduler whose settings alone say that it has no linear form. Raises UnsupportedModel."""
    check_order(scheduler)
    name, config = type(scheduler).__name__, scheduler.config
    if config.get("thresholding"):
        raise UnsupportedModel(
            f"{name} cuts off large values (thresholding), so it is not linear in its velocities",
            remedy="set thresholding=False",
        )
    prediction = config.get("prediction_type", "flow_prediction")
    if prediction != "flow_prediction":
        raise UnsupportedModel(
            f"{name} is for networks that predict {prediction}, not the velocity of flow matching",
            remedy=f"if the network predicts that velocity, use {_USABLE} (prediction_type='flow_prediction'); "
            "other networks are not supported",
        )


def check_states(scheduler: Any, run: Run, sigmas: Tensor, states: Tensor) -> None:
    """Refuse a scheduler whose `states` on `sigmas`, from a basis of inputs, are not those of a linear form.

    Raises:
        UnsupportedModel: it is random, not finite on these sigmas, not linear, or not for flow matching.
    """
    name, inputs = type(scheduler).__name__, torch.eye(len(states), dtype=torch.float64)
    first, second = (_seeded(run, sigmas, inputs, seed) for seed in (0, 1))
    if not torch.equal(first.nan_to_num(), second.nan_to_num()):
        raise UnsupportedModel(
            f"{name} draws noise of its own, so that no two runs are equal", remedy=f"use {_USABLE}"
        )
    if not states.isfinite().all():
        raise _not_finite(name, run, sigmas, inputs)
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(len(states), 1, generator=generator, dtype=torch.float64)
    if not torch.allclose(states @ probe, run(sigmas, probe), atol=_TOLERANCE):
        raise UnsupportedModel(f"{name} is not linear in its velocities", remedy=f"use {_USABLE}")
    start, velocity = states[:, 0] - 1, states[:, 1:].sum(1) - (sigmas - sigmas[0])
    if max(float(start.abs().max()), float(velocity.abs().max())) > _STRAIGHT:
        raise UnsupportedModel(
            f"{name} does not go along the straight paths of flow matching",
            remedy=f"use {_USABLE} (use_flow_sigmas=True)",
        )


def cannot_run(scheduler: Any, error: Exception) -> UnsupportedModel:
    """Return the refusal of a scheduler that fails on a schedule of sigmas."""
    return UnsupportedModel(
        f"{type(scheduler).__name__} cannot run on a given schedule: {reason_of(error)}",
        remedy=f"use {_USABLE}",
    )


def _not_finite(name: str, run: Run, sigmas: Tensor, inputs: Tensor) -> UnsupportedModel:
    below_one = torch.cat([sigmas[:1].clamp_max(_BELOW_ONE), sigmas[1:]])
    if run(below_one, inputs).isfinite().all():
        remedy = (
            f"begin the schedule at {_BELOW_ONE} instead of {float(sigmas[0])}, or use flow-matching Euler"
        )
    else:
        remedy = f"use {_USABLE}"
    return UnsupportedModel(
        f"{name} has no finite states from sigma {float(sigmas[0])} to {float(sigmas[-1])} with these settings",
        remedy=remedy,
    )


def _seeded(run: Run, sigmas: Tensor, inputs: Tensor, seed: int) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return run(sigmas, inputs)
