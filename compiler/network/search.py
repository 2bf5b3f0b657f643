"""From a task on tensors to what `compile_policy` returns: the search in its folder, and the report."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from torch import Tensor

from budc.compiler.api_samples import prompt_set
from budc.compiler.denoisers.batched import BatchedDenoiser
from budc.compiler.denoisers.conditioning import Conditioning
from budc.compiler.network.binding import parts_of, roots_in_memory
from budc.compiler.network.compiled import Compiled, Origin, SourcePolicy
from budc.compiler.network.finding import Find
from budc.compiler.rollouts.metrics import latent_errors, latent_metric
from budc.compiler.rollouts.policies import full_policy, shared_policy
from budc.compiler.rollouts.policy import rollout_policy
from budc.compiler.rollouts.schedule import NoiseSchedule
from budc.compiler.search import algorithm
from budc.compiler.selection.task import SearchResult, Task
from budc.compiler.storage.journal import Journal
from budc.policies.profile import AnnealingSettings
from budc.progress import Report, reported
from budc.schema.errors import CompileError
from budc.schema.mask import StepMask
from budc.schema.policy import Metric, Policy
from budc.schema.predictor import Predictor
from budc.schema.report_names import FEWER_STEPS, FROZEN, OBJECTIVES, UNIFORM

ANNEALING = AnnealingSettings(temperature_start=0.05, temperature_end=1e-5, protected_fraction=0.25)
"""The paper's settings for FLUX; only the paper's own search reads them."""


def origin_of(
    task: Task,
    held_out: Conditioning | None,
    budget: str,
    *,
    hashed: bool,
    source: SourcePolicy | None = None,
    proxy: Conditioning | None = None,
) -> Origin:
    """Return what an artifact says of a task beside its result; `hashed`: with the weights' digests as they are now."""
    denoiser = task.denoiser
    return Origin(
        denoiser=denoiser,
        schedule=task.schedule,
        roots=roots_in_memory(denoiser) if hashed else (None,) * len(parts_of(denoiser)),
        latents=tuple(task.conditions.noise.shape[1:]),
        calibration=prompt_set(task.conditions),
        held_out=prompt_set(held_out),
        objective=OBJECTIVES["log-mean" if source else algorithm(task.search).objective],
        budget=budget,
        algorithm="transfer" if source else task.search,
        seed=task.seed,
        source=source,
        proxy=() if proxy is None else tuple(proxy.noise.shape[1:]),
    )


def compiled(
    task: Task,
    held_out: Conditioning | None,
    origin: Origin,
    find: Find,
    resumed: tuple[Path, str] | None = None,
    progress: Report | None = None,
) -> Compiled:
    """Return what `find` finds for a task, measured on samples that were held out.

    Args:
        task: what is to be found.
        held_out: samples of the report; None for none.
        origin: what an artifact says beside the result.
        find: finds it, and settles the task's budget where that follows from something else.
        resumed: the folder of the journal and its fingerprint; by default nothing is kept.
        progress: what is told of each pass; None for silence.
    """
    with ExitStack() as stack:
        stack.enter_context(reported(progress))
        if resumed is None:
            resumed = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="budc-"))), ""
        task, result = find(task, stack.enter_context(Journal(*resumed)))
        report = {} if held_out is None else _report(task, result, held_out, origin)
    return Compiled(result.policy, result.schedule.sigmas, result.schedule.timesteps, result, report, origin)


def _report(
    task: Task, result: SearchResult, conditions: Conditioning, origin: Origin
) -> Mapping[str, Metric]:
    branches = task.denoiser.branches
    network = BatchedDenoiser(task.denoiser, conditions, task.batch)
    first_steps = task.denoiser.first_steps(task.schedule.timesteps)
    mask = StepMask.uniform(task.schedule.steps, task.nfe).through(first_steps)
    runs = {
        "policy": (result.policy, result.schedule),
        UNIFORM: (shared_policy(mask, Predictor.plain_reuse(mask), branches), task.schedule),
        FEWER_STEPS: (full_policy(task.nfe, branches), task.schedule.resampled(task.nfe)),
    }
    if origin.source is not None:
        runs[FROZEN] = origin.source.policy, task.schedule

    def latents(policy: Policy, schedule: NoiseSchedule) -> Tensor:
        return rollout_policy(network, schedule.linear_form(), policy)

    reference = latents(full_policy(task.schedule.steps, branches), task.schedule)
    errors = {
        name: latent_errors(latents(policy, schedule), reference) for name, (policy, schedule) in runs.items()
    }
    if not all(map(math.isfinite, errors["policy"])):
        raise CompileError(
            "held_out: the policy's final latents, or those of the full run, are not finite on these samples",
            remedy="check that the network is finite where it reuses, and the samples; or try another budget",
        )
    # A baseline that diverges has no figure.
    return {name: latent_metric(own) for name, own in errors.items() if all(map(math.isfinite, own))}
