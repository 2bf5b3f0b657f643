"""The same policy in fewer steps: reused steps in a row become one.

With velocities as payload, a solver that keeps no history, and a linear guidance, an interval of reused steps adds

    Σ_j h_j Σ_i c_{j,i} v_i  =  H Σ_i c̄_i v_i        h_j = σ_{j+1} - σ_j,   H = Σ_j h_j,   c̄_i = Σ_j h_j c_{j,i} / H

so one step with the row c̄ ends in the same latents. What is trained is then one row an interval instead of one a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from budc.compiler.rollouts.schedule import NoiseSchedule
from budc.schema.policy import Policy


def condensed(policy: Policy, schedule: NoiseSchedule) -> tuple[Policy, NoiseSchedule] | None:
    """Return the policy and its schedule with every run of steps that all branches reuse as one step.

    Another solver or guidance ends in other latents, so whoever asks has to measure. None where there is no such run,
    or where the payload is not the velocity.
    """
    if policy.payload != "velocity":
        return None
    rows = {name: entry.predictor for entry in policy.branches for name in entry.names}
    computing = [not all(row[step] for row in rows.values()) for step in range(schedule.steps)]
    firsts = [step for step in range(schedule.steps) if computing[step] or computing[step - 1]]
    if len(firsts) == schedule.steps:
        return None
    runs = list(pairwise([*firsts, schedule.steps]))
    gaps = [before - after for before, after in pairwise(schedule.sigmas)]
    merged = {
        name: [_mean(predictor[start:end], gaps[start:end]) for start, end in runs]
        for name, predictor in rows.items()
    }
    sigmas = [*(schedule.sigmas[step] for step in firsts), schedule.sigmas[-1]]
    timesteps = [schedule.timesteps[step] for step in firsts]
    return Policy.of(policy.payload, merged), NoiseSchedule.of(schedule.scheduler, sigmas, timesteps)


def _mean(rows: Sequence[Sequence[float]], gaps: Sequence[float]) -> list[float]:
    """Return the mean of rows by the lengths of their steps; terms that a row lacks are 0."""
    terms = range(max(map(len, rows)))
    padded = [[*row, *[0.0] * (len(terms) - len(row))] for row in rows]
    return [sum(gap * row[term] for gap, row in zip(gaps, padded, strict=True)) / sum(gaps) for term in terms]
