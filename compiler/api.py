"""The compiler on tensors: a policy for any network that has a trunk, with no pipeline and no artifact.

    compiled = budc.compile_policy(
        transformer,                                # or a pair (compute, reuse)
        conditioning={"cond": text, "uncond": empty},
        noise=noise,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        sigmas=sigmas,
        budget=8,
        guidance={"cond": 4.0, "uncond": -3.0},
    )

`budc compile` comes through here as well; it adds a model's files before, and held-out prompts, frames and a
signature after.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from budc.compiler.budget import parse_budget
from budc.compiler.denoisers.batched import BatchedDenoiser
from budc.compiler.denoisers.callables import CallableDenoiser
from budc.compiler.denoisers.conditioning import Condition, Conditioning, named_tensors
from budc.compiler.denoisers.denoiser import Denoiser
from budc.compiler.denoisers.module import ModuleDenoiser
from budc.compiler.rollouts.linear_form import linear_form
from budc.compiler.rollouts.metrics import latent_errors, latent_metric
from budc.compiler.rollouts.policies import full_policy, shared_policy
from budc.compiler.rollouts.policy import rollout_policy
from budc.compiler.search import algorithm
from budc.compiler.selection.finder import compile_policies
from budc.compiler.selection.task import NoiseSchedule, SearchResult, Task, resampled
from budc.compiler.storage.journal import Journal
from budc.policies.profile import AnnealingSettings
from budc.schema.canonical import digest
from budc.schema.errors import UsageError
from budc.schema.mask import StepMask
from budc.schema.policy import Metric, Policy
from budc.schema.predictor import Predictor
from budc.schema.report_names import FEWER_STEPS, UNIFORM
from budc.schema.sigmas import Sigmas

Pair = tuple[
    Callable[[Tensor, Tensor, Any], tuple[Tensor, Tensor]],
    Callable[[Tensor, Tensor, Tensor, Any], Tensor],
]


@dataclass(frozen=True)
class Compiled:
    """A policy, the schedule that it runs on, how it was found, and its squared latent errors on held-out samples.

    `report` has the policy, "uniform" (plain reuse) and "fewer-steps" (nothing cached), all at the same NFE; it is
    empty where nothing was held out.
    """

    policy: Policy
    sigmas: tuple[float, ...]
    timesteps: tuple[float, ...]
    outcome: SearchResult
    report: Mapping[str, Metric]


def compile_policy(
    denoiser: nn.Module | Pair | Denoiser,
    conditioning: Mapping[str, Condition],
    noise: Tensor,
    scheduler: Any,
    sigmas: Sequence[float],
    budget: int | str,
    *,
    timesteps: Sequence[float] | None = None,
    guidance: Mapping[str, float] | None = None,
    blocks: str = "blocks",
    held_out: tuple[Mapping[str, Condition], Tensor] | None = None,
    search: str = "joint",
    align: bool = False,
    steps: Literal["auto"] | None = None,
    seed: int = 0,
    batch: int | None = None,
    work: Path | None = None,
) -> Compiled:
    """Search the best policy of a budget for a denoiser.

    Args:
        denoiser: a module called as (latents, timestep, condition) whose trunk is the `ModuleList` named by
            `blocks`, a pair (compute, reuse), see `budc.compiler.denoisers.denoiser`, or several that share a run, see
            `budc.compiler.denoisers.experts`.
        conditioning: guidance branch -> what each is conditioned on, for N calibration samples: a tensor (N, ...), or
            several by name.
        noise: (N, ...) initial latents, float32.
        scheduler: one with one evaluation a step (`set_timesteps`, `step`), such as diffusers' flow-matching Euler
            or UniPC.
        sigmas: steps + 1 noise levels, strictly decreasing, terminal value included.
        budget: evaluations per branch, or a factor such as "2.8x".
        timesteps: what the network is given, steps values; default sigma times the training timesteps.
        guidance: branch -> weight in the guided velocity; needed where there are several branches.
        held_out: conditioning and noise of samples that nothing is selected on, for the report.
        steps: "auto" lets a few plain steps be the policy where they win.
        work: folder to resume from; it belongs to one network and is not removed.

    Raises:
        UsageError: shapes or branches that do not fit together. BudgetImpossible, SemanticsViolation,
        UnsupportedModel: see `parse_budget`, `Sigmas`, `ModuleDenoiser` and `linear_form`.
    """
    levels = tuple(Sigmas.of(sigmas))
    scale = float(getattr(getattr(scheduler, "config", None), "num_train_timesteps", 1000))
    schedule = NoiseSchedule(levels, tuple(timesteps or (sigma * scale for sigma in levels[:-1])))
    if schedule.steps != len(levels) - 1:
        raise UsageError(f"{schedule.steps} timesteps for {len(levels)} sigmas, expected {len(levels) - 1}")
    weights = _weights(conditioning, guidance)
    conditions = _conditions(conditioning, noise, "conditioning")
    network = _denoiser(denoiser, weights, blocks, noise.device)
    denoisers = 1 + len(network.first_steps(schedule.timesteps))
    nfe = parse_budget(str(budget), schedule.steps, denoisers)
    task = Task(
        denoiser=network,
        scheduler=scheduler,
        schedule=schedule,
        conditions=conditions,
        nfe=nfe,
        # The paper's settings for FLUX; only its own search reads them.
        annealing=AnnealingSettings(temperature_start=0.05, temperature_end=1e-5, protected_fraction=0.25),
        search=search,
        align=align,
        seed=seed,
        batch=batch,
        few_step_schedule=resampled(schedule, nfe) if steps == "auto" else None,
    )
    algorithm(search)
    folder = nullcontext(str(work)) if work is not None else tempfile.TemporaryDirectory(prefix="budc-")
    with folder as place, Journal(Path(place), _fingerprint(task, weights, steps)) as journal:
        ((_, outcome),) = compile_policies(task, [nfe], journal)
    report = _report(task, outcome, held_out) if held_out else {}
    return Compiled(outcome.policy, outcome.schedule.sigmas, outcome.schedule.timesteps, outcome, report)


def _weights(
    conditioning: Mapping[str, Condition], guidance: Mapping[str, float] | None
) -> Mapping[str, float]:
    if guidance is None and len(conditioning) == 1:
        return dict.fromkeys(conditioning, 1.0)
    if guidance is None or guidance.keys() != conditioning.keys():
        raise UsageError(
            f"guidance has the branches {sorted(guidance or ())}, conditioning has {sorted(conditioning)}",
            remedy='give each branch its weight, such as {"cond": 5.0, "uncond": -4.0} for a scale of 5',
        )
    return guidance


def _conditions(conditioning: Mapping[str, Condition], noise: Tensor, name: str) -> Conditioning:
    for branch, condition in conditioning.items():
        for part, value in named_tensors(condition).items():
            if len(value) != len(noise):
                where = f"{name}[{branch!r}]" + (f"[{part!r}]" if part else "")
                raise UsageError(f"{where} has {len(value)} samples, noise has {len(noise)}")
    if len(noise) == 0:
        raise UsageError(f"{name} holds no sample")
    return Conditioning(dict(conditioning), noise.float()).to(torch.device("cpu"))


def _denoiser(
    denoiser: nn.Module | Pair | Denoiser, weights: Mapping[str, float], blocks: str, device: torch.device
) -> Denoiser:
    if isinstance(denoiser, nn.Module):
        return ModuleDenoiser(denoiser, weights, blocks)
    if isinstance(denoiser, tuple):
        return CallableDenoiser(*denoiser, weights, device)
    return denoiser


def _fingerprint(task: Task, weights: Mapping[str, float], steps: str | None) -> str:
    def hashed(tensor: Tensor) -> str:
        return hashlib.sha256(tensor.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()

    return digest(
        {
            "schedule": [list(task.schedule.sigmas), list(task.schedule.timesteps)],
            "budget": task.nfe,
            "search": [task.search, task.align, steps or "", task.seed],
            "noise": hashed(task.conditions.noise),
            "conditioning": {
                name: {part: hashed(value) for part, value in named_tensors(condition).items()}
                for name, condition in task.conditions.embeddings.items()
            },
            "guidance": dict(weights),
            "scheduler": type(task.scheduler).__name__,
            "threads": torch.get_num_threads(),
        }
    )


def _report(
    task: Task, outcome: SearchResult, held_out: tuple[Mapping[str, Condition], Tensor]
) -> Mapping[str, Metric]:
    conditions, branches = _conditions(*held_out, "held_out"), task.denoiser.branches
    network = BatchedDenoiser(task.denoiser, conditions, task.batch)
    first_steps = task.denoiser.first_steps(task.schedule.timesteps)
    mask = StepMask.uniform(task.schedule.steps, task.nfe).through(first_steps)
    runs = {
        "policy": (outcome.policy, outcome.schedule),
        UNIFORM: (shared_policy(mask, Predictor.plain_reuse(mask), branches), task.schedule),
        FEWER_STEPS: (full_policy(task.nfe, branches), resampled(task.schedule, task.nfe)),
    }

    def latents(policy: Policy, schedule: NoiseSchedule) -> Tensor:
        return rollout_policy(
            network, linear_form(task.scheduler, schedule.sigmas, schedule.timesteps), policy
        )

    reference = latents(full_policy(task.schedule.steps, branches), task.schedule)
    return {
        name: latent_metric(latent_errors(latents(policy, schedule), reference))
        for name, (policy, schedule) in runs.items()
    }
