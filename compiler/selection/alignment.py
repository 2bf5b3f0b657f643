"""Alignment: sigmas and coefficients of a policy, trained together by gradient, kept where other prompts say so."""

from __future__ import annotations

from dataclasses import replace

import torch

from budc.compiler.fitting.trajectory import bounded
from budc.compiler.rollouts.linear_form import linear_form
from budc.compiler.selection.arbitration import Arbiter
from budc.compiler.selection.task import NoiseSchedule, SearchResult, Task
from budc.compiler.storage.journal import Journal
from budc.compiler.training.dataset import TrainingSet
from budc.compiler.training.parameters import PolicyParameters
from budc.compiler.training.trainer import TrainingSettings, train
from budc.schema.policy import Policy

EPOCHS = 0.4, 3
"""Epochs of the refinement for each evaluation of the budget, and the fewest: more evaluations have more to train."""

BATCH = 2
"""Samples a step. Of an epoch's forwards, small batches make the most steps."""


def epochs(nfe: int) -> int:
    """Return how many epochs a policy of `nfe` evaluations a branch is trained for."""
    each, fewest = EPOCHS
    return max(fewest, round(each * nfe))


def align(
    task: Task,
    outcome: SearchResult,
    before: float,
    training_set: TrainingSet,
    arbiter: Arbiter,
    journal: Journal,
) -> tuple[tuple[float, SearchResult], int]:
    """Train a policy on `training_set`; return the better one, before or after, its loss by `arbiter`, and the cost.

    `before` is the loss of `outcome` by the same arbiter, whose own forwards it counts itself. Steps stay with the
    network that they belong to.
    """
    first_steps = task.denoiser.first_steps(outcome.schedule.timesteps)
    parameters = PolicyParameters(
        outcome.policy,
        task.scheduler,
        outcome.schedule.sigmas,
        outcome.schedule.timesteps,
        True,
        first_steps=first_steps,
    )
    if task.denoiser.first_steps(parameters.form().timesteps.detach()) != first_steps:
        # The schedule's own timesteps are rounded over a boundary that the exact ones are not.
        return (before, outcome), 0
    many = epochs(task.nfe)
    name = f"{task.search} {task.nfe} {outcome.schedule.steps} {many}x{BATCH}"
    refined = train(
        task.denoiser,
        parameters,
        training_set,
        arbiter.samples,
        TrainingSettings(many, task.seed, BATCH),
        journal,
        f"align {name}",
    )
    policy, schedule = aligned(outcome.policy, parameters)
    form = linear_form(task.scheduler, schedule.sigmas, schedule.timesteps)
    after = arbiter.loss(f"{name} aligned", policy, form)
    if after < before:
        return (after, replace(outcome, policy=policy, schedule=schedule, aligned=True)), refined.forwards
    return (before, outcome), refined.forwards


@torch.no_grad()
def aligned(policy: Policy, parameters: PolicyParameters) -> tuple[Policy, NoiseSchedule]:
    """Return the policy and the schedule that trained parameters describe, coefficients within their bounds."""
    sigmas = parameters.schedule().float()
    timesteps = (sigmas[:-1].double() * parameters.scale).float()
    rows = {
        name: [
            [bounded(float(value)) for value in parameters.row(name, step)] for step in range(len(entry.mask))
        ]
        for entry in policy.branches
        for name in entry.names
    }
    schedule = NoiseSchedule(tuple(sigmas.tolist()), tuple(timesteps.tolist()))
    return Policy.of(policy.payload, rows), schedule
