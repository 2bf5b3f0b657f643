"""Alignment: sigmas and coefficients of a policy trained by gradient, and kept where that helps other prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from budc.compiler.fitting.trajectory import bounded
from budc.compiler.rollouts.directions import directions
from budc.compiler.rollouts.schedule import NoiseSchedule
from budc.compiler.selection.arbitration import Arbiter, Contender
from budc.compiler.selection.effort import effort, epochs
from budc.compiler.selection.task import Task
from budc.compiler.storage.journal import Journal
from budc.compiler.training.dataset import TrainingSet
from budc.compiler.training.parameters import PolicyParameters
from budc.compiler.training.preconditioner import Preconditioner
from budc.compiler.training.trainer import RATES, TrainingSettings, train
from budc.schema.policy import Policy

BATCH = 2
"""Samples a training step: with small batches, an epoch of the same forwards has more steps."""

PRECONDITIONED_RATES: Mapping[str, float] = {"coefficients": 0.02, "branches": 0.004, "sigmas": 0.01}
"""Learning rates where coefficients move in the units of a preconditioner. Those are of all branches together: under a
guidance scale of five, one branch alone changes about five times as much."""


def align(
    task: Task, contender: Contender, training_set: TrainingSet, arbiter: Arbiter, journal: Journal
) -> tuple[Contender, int]:
    """Train a contender's policy on `training_set`; return the better one, before or after, and the forwards spent.

    The arbiter counts its own forwards. Steps stay with the denoiser that they belong to.
    """
    policy, schedule = contender.result.policy, contender.result.schedule
    first_steps = task.denoiser.first_steps(schedule.timesteps)
    parameters = PolicyParameters(
        policy,
        schedule.scheduler,
        schedule.sigmas,
        schedule.timesteps,
        train_sigmas=task.train != "coefficients",
        first_steps=first_steps,
        train_coefficients=task.train != "sigmas",
        preconditioner=_preconditioner(task, contender),
    )
    if not parameters.groups:
        # Plain steps have no coefficients.
        return contender, 0
    count = epochs(task.nfe, effort(task.effort))
    trained = "" if task.train == "both" else f" {task.train}"
    units = " refined" if contender.equations else ""
    name = f"{task.search} {task.nfe} {schedule.steps} {count} epochs of {BATCH}{trained}{units}"
    training = train(
        task.denoiser,
        parameters,
        training_set,
        arbiter.samples,
        TrainingSettings(count, task.seed, BATCH, PRECONDITIONED_RATES if contender.equations else RATES),
        journal,
        f"align {name}",
    )
    policy, schedule = aligned(policy, parameters)
    loss = arbiter.loss(f"{name} aligned", policy, schedule.linear_form())
    if loss < contender.loss:
        result = replace(contender.result, policy=policy, schedule=schedule, aligned=True)
        contender = Contender(loss, result)
    return contender, training.forwards


def _preconditioner(task: Task, contender: Contender) -> Preconditioner | None:
    """Return that of a refinement, None where there was none."""
    if not contender.equations:
        return None
    along = directions(contender.result.policy, task.denoiser.branches)
    return Preconditioner.of(along, contender.equations)


@torch.no_grad()
def aligned(policy: Policy, parameters: PolicyParameters) -> tuple[Policy, NoiseSchedule]:
    """Return the policy and the schedule that trained parameters describe, coefficients within their bounds."""
    rows = {
        name: [
            [bounded(float(value)) for value in parameters.row(name, step)] for step in range(len(entry.mask))
        ]
        for entry in policy.branches
        for name in entry.names
    }
    return Policy.of(policy.payload, rows), parameters.noise_schedule()
