"""What a method returns, and how a policy that is the same for all prompts is run for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from budc.compiler.comparison.fitted import Fitted
from budc.compiler.comparison.rollouts import roll_fitted
from budc.compiler.rollouts.linear_form import LinearForm, linear_form
from budc.compiler.rollouts.policies import forwards_per_sample
from budc.compiler.rollouts.policy import rollout_policy
from budc.schema.policy import Policy
from quality_methods.setting import Samples, Setting


@dataclass(frozen=True)
class Outcome:
    """A method on the held-out prompts.

    `latents` (N, ...) are final; `nfe` is every sample's number of evaluations per guidance branch; `forwards` are
    the transformer forwards spent on calibration prompts, a backward counted as two, the full run included where it
    was used; `unshared` are those that candidates without shared beginnings would take; `chosen` says what was found.
    """

    latents: Tensor
    nfe: tuple[float, ...]
    forwards: int = 0
    unshared: int | None = None
    chosen: dict[str, Any] = field(default_factory=dict)


def run_fitted(setting: Setting, fitted: Fitted) -> Outcome:
    """Run what a method found on the held-out prompts."""
    fields: dict[str, Any] = {
        "forwards": fitted.forwards,
        "unshared": fitted.unshared,
        "chosen": dict(fitted.chosen),
    }
    if fitted.policy is not None:
        form = None
        if fitted.sigmas is not None and fitted.timesteps is not None:
            form = linear_form(setting.model.scheduler, fitted.sigmas, fitted.timesteps)
        return static(setting, fitted.policy, form, **fields)
    latents, counts = roll_fitted(setting, fitted, setting.held_out.conditions)
    return Outcome(latents, tuple(counts.tolist()), **fields)


def static(
    setting: Setting,
    policy: Policy,
    form: LinearForm | None = None,
    samples: Samples | None = None,
    **fields: Any,
) -> Outcome:
    """Roll a fixed policy out on the held-out prompts (or on others); `fields` are those of the outcome."""
    chosen = samples or setting.held_out
    latents = rollout_policy(setting.network(chosen), form or setting.form, policy)
    nfe = forwards_per_sample(policy) / len(setting.branches)
    return Outcome(latents, (nfe,) * len(chosen), **fields)
