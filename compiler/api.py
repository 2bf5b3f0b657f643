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

`budc compile` runs the same search; it adds a model's files before, and held-out prompts, frames and a signature
after.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from budc.compiler.api_inputs import Pair, as_denoiser, branch_weights, noise_schedule
from budc.compiler.api_samples import held_out_samples, prompt_set, sample_conditions
from budc.compiler.api_settings import check_choices, check_numbers
from budc.compiler.budget import parse_budget
from budc.compiler.denoisers.batched import BatchedDenoiser
from budc.compiler.denoisers.conditioning import Condition, Conditioning
from budc.compiler.denoisers.denoiser import Denoiser
from budc.compiler.fingerprint import fingerprint_of, network_identity
from budc.compiler.network.compiled import Compiled, Origin
from budc.compiler.rollouts.metrics import latent_errors, latent_metric
from budc.compiler.rollouts.policies import full_policy, shared_policy
from budc.compiler.rollouts.policy import rollout_policy
from budc.compiler.rollouts.schedule import NoiseSchedule
from budc.compiler.search import algorithm
from budc.compiler.selection.finder import Finder
from budc.compiler.selection.split import check_arbitrated
from budc.compiler.selection.task import SearchResult, Task
from budc.compiler.storage.journal import Journal
from budc.option_names import python_names
from budc.policies.profile import AnnealingSettings
from budc.schema.arguments import path_argument
from budc.schema.mask import StepMask
from budc.schema.policy import Metric, Policy
from budc.schema.predictor import Predictor
from budc.schema.report_names import FEWER_STEPS, OBJECTIVES, UNIFORM

__all__ = ["Compiled", "compile_policy"]

_ANNEALING = AnnealingSettings(temperature_start=0.05, temperature_end=1e-5, protected_fraction=0.25)
"""The paper's settings for FLUX; only the paper's own search reads them."""


@python_names()
def compile_policy(
    denoiser: nn.Module | Pair | Denoiser,
    *,
    # What is sampled, and for how much.
    conditioning: Mapping[str, Condition],
    noise: Tensor,
    scheduler: Any,
    sigmas: Sequence[float] | Tensor,
    budget: int | str,
    guidance: Mapping[str, float] | None = None,
    # The network's details, the search, and where it runs.
    timesteps: Sequence[float] | Tensor | None = None,
    blocks: str = "blocks",
    held_out: tuple[Mapping[str, Condition], Tensor] | None = None,
    search: str = "joint",
    align: bool = False,
    steps: Literal["auto"] | None = None,
    seed: int = 0,
    batch: int | None = None,
    work: str | PathLike[str] | None = None,
    weights: str | None = None,
) -> Compiled:
    """Search the best policy of a budget for a denoiser.

    Args:
        denoiser: a module called as (latents, timestep, condition), a pair (compute, reuse), or a `Denoiser`.
        conditioning: guidance branch -> condition of N calibration samples: a tensor (N, ...), or several by name.
        noise: (N, ...) initial latents, float32.
        scheduler: one for flow matching with one evaluation a step, such as diffusers' flow-matching Euler or UniPC.
        sigmas: steps + 1 noise levels, strictly decreasing, terminal value included.
        budget: evaluations per branch, or a factor such as "2.8x".
        guidance: branch -> weight in the guided velocity, adding up to 1; needed where there are several branches.
        timesteps: what the network is given, steps values; default sigma times the training timesteps.
        blocks: name of the `ModuleList` that is a module's trunk.
        held_out: conditioning and noise of samples that nothing is selected on, for the report.
        search, align, seed: algorithm by name; whether sigmas and coefficients are trained by gradient as well.
        steps, batch: "auto" lets a few plain steps be the policy; the most samples of one forward.
        work, weights: folder to resume from; what names the network that it belongs to (default: a module's hash).

    Raises:
        BudcError: arguments that do not fit together; see also `parse_budget`, `Sigmas` and `linear_form`.
    """
    check_choices(search, align, steps, weights)
    seed, batch = check_numbers(budget, seed, batch)
    check_arbitrated(search, align=align, auto_steps=steps == "auto")
    conditions = sample_conditions(conditioning, noise)
    reported = held_out_samples(held_out, conditions)
    branches = branch_weights(conditioning, guidance)
    schedule = noise_schedule(scheduler, sigmas, timesteps)
    network = as_denoiser(denoiser, branches, blocks, noise.device)
    nfe = parse_budget(str(budget), schedule.steps, 1 + len(network.first_steps(schedule.timesteps)))
    task = Task(
        network, schedule, conditions, nfe, _ANNEALING, search, seed, align, batch=batch,
        few_step_schedule=schedule.resampled(nfe) if steps == "auto" else None,
    )  # fmt: skip
    origin = Origin(
        denoiser=network,
        schedule=schedule,
        latents=tuple(noise.shape[1:]),
        calibration=prompt_set(conditions),
        held_out=prompt_set(reported),
        objective=OBJECTIVES[algorithm(search).objective],
        budget=str(budget),
        algorithm=search,
        seed=seed,
    )
    if work is None:
        return _compiled(task, reported, origin)
    folder = path_argument(work, "work", "pass a folder to resume from")
    identity = network_identity(network, weights, blocks)
    return _compiled(task, reported, origin, folder, fingerprint_of(task, identity, branches))


def _compiled(
    task: Task,
    held_out: Conditioning | None,
    origin: Origin,
    folder: Path | None = None,
    fingerprint: str = "",
) -> Compiled:
    with ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="budc-")))
        journal = stack.enter_context(Journal(folder, fingerprint))
        result = Finder(task, journal).find(task)
    report = {} if held_out is None else _report(task, result, held_out)
    return Compiled(result.policy, result.schedule.sigmas, result.schedule.timesteps, result, report, origin)


def _report(task: Task, result: SearchResult, conditions: Conditioning) -> Mapping[str, Metric]:
    branches = task.denoiser.branches
    network = BatchedDenoiser(task.denoiser, conditions, task.batch)
    first_steps = task.denoiser.first_steps(task.schedule.timesteps)
    mask = StepMask.uniform(task.schedule.steps, task.nfe).through(first_steps)
    runs = {
        "policy": (result.policy, result.schedule),
        UNIFORM: (shared_policy(mask, Predictor.plain_reuse(mask), branches), task.schedule),
        FEWER_STEPS: (full_policy(task.nfe, branches), task.schedule.resampled(task.nfe)),
    }

    def latents(policy: Policy, schedule: NoiseSchedule) -> Tensor:
        return rollout_policy(network, schedule.linear_form(), policy)

    reference = latents(full_policy(task.schedule.steps, branches), task.schedule)
    return {
        name: latent_metric(latent_errors(latents(policy, schedule), reference))
        for name, (policy, schedule) in runs.items()
    }
