"""What a method returns, and how a policy that is the same for all prompts is run for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from budc.compiler.rollouts.linear_form import LinearForm
from budc.compiler.rollouts.policies import forwards_per_sample, shared_policy
from budc.compiler.rollouts.policy import rollout_policy
from budc.schema.mask import StepMask
from budc.schema.policy import Policy
from budc.schema.predictor import Predictor
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


def plain(setting: Setting, steps: tuple[int, ...]) -> Policy:
    """Return the policy that computes these steps in all branches and reuses the newest residual."""
    mask = StepMask.from_compute_steps(setting.form.steps, steps)
    return shared_policy(mask, Predictor.plain_reuse(mask), setting.branches)


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
