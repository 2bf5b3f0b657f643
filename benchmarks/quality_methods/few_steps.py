"""Fewer steps of a good solver, nothing cached: what any caching policy has to beat at its NFE.

Euler, UniPC and DPM++(2M) are diffusers' own; two-step Adams-Bashforth is implemented here. Each is a `LinearForm` on
the schedule that the model's sampler has at that number of steps, so a scheduler's own shift has no effect.
`trained_steps` starts from the same forms.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from torch import Tensor

from budc.compiler.comparison.learned_solver import Form, default_schedule, of_scheduler
from budc.compiler.rollouts.linear_form import LinearForm
from budc.compiler.rollouts.policies import full_policy
from quality_methods.outcome import Outcome, static
from quality_methods.setting import Setting


def adams_bashforth(sigmas: Tensor, timesteps: Tensor) -> LinearForm:
    """Two-step Adams-Bashforth on uneven steps; its first step is Euler's.

    x_{k+1} = x_k + h_k ((1 + w_k / 2) v_k - w_k / 2 v_{k-1}),   h_k = σ_{k+1} - σ_k,   w_k = h_k / h_{k-1}
    """
    gaps = (sigmas[1:] - sigmas[:-1]).double()
    half = torch.cat([torch.zeros(1, dtype=gaps.dtype), gaps[1:] / gaps[:-1] / 2])
    older = torch.diag_embed(-(gaps * half)[1:], offset=-1) if len(gaps) > 1 else 0.0
    rows = torch.diag_embed(gaps * (1 + half)) + older
    velocity = torch.cat([torch.zeros(1, len(gaps), dtype=gaps.dtype), rows.cumsum(0)])
    return LinearForm(torch.ones(len(gaps) + 1, dtype=gaps.dtype), velocity, timesteps.double())


def euler(setting: Setting) -> Form:
    """Flow-matching Euler."""
    return of_scheduler(FlowMatchEulerDiscreteScheduler())


def unipc(setting: Setting) -> Form:
    """UniPC: the model's own where that is its solver, else as the library configures it for flow matching."""
    own = setting.model.scheduler
    if isinstance(own, UniPCMultistepScheduler):
        return of_scheduler(own)
    return of_scheduler(UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True))


def dpm(setting: Setting) -> Form:
    """DPM++(2M), as the library configures it for flow matching."""
    return of_scheduler(
        DPMSolverMultistepScheduler(
            algorithm_type="dpmsolver++",
            solver_order=2,
            prediction_type="flow_prediction",
            use_flow_sigmas=True,
        )
    )


def ab2(setting: Setting) -> Form:
    """Two-step Adams-Bashforth."""
    return adams_bashforth


SOLVERS: dict[str, Callable[[Setting], Form]] = {"euler": euler, "unipc": unipc, "dpm++": dpm, "ab2": ab2}


def few_steps(setting: Setting, nfe: int, solver: str) -> Outcome:
    """Run a solver with `nfe` steps on the default schedule."""
    form = SOLVERS[solver](setting)(*default_schedule(setting, nfe))
    return static(setting, full_policy(nfe, setting.branches), form)
