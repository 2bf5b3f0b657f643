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
after. Its `--for` has no counterpart here: other engines are for models that they know, not for a network of one's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, Literal

from torch import Tensor, nn

from budc.compiler.api_inputs import Pair, as_denoiser, branch_weights, noise_schedule
from budc.compiler.api_samples import prompt_set, proxy_samples, sample_sets
from budc.compiler.api_settings import check_choices, check_execution
from budc.compiler.denoisers.conditioning import Condition
from budc.compiler.denoisers.denoiser import Denoiser
from budc.compiler.fingerprint import network_identity, resumable
from budc.compiler.network.asked import asked_budget
from budc.compiler.network.compiled import Compiled
from budc.compiler.network.finding import search_through
from budc.compiler.network.search import ANNEALING, compiled, origin_of
from budc.compiler.selection.effort import DEFAULT_EFFORT
from budc.compiler.selection.stages import Trained
from budc.compiler.selection.task import Task
from budc.option_names import python_names
from budc.progress import Report

__all__ = ["Compiled", "compile_policy"]


@python_names()
def compile_policy(
    denoiser: nn.Module | Pair | Denoiser,
    *,
    # What is sampled, and for how much.
    conditioning: Mapping[str, Condition],
    noise: Tensor,
    scheduler: Any,
    sigmas: Sequence[float] | Tensor,
    budget: int | str | None = None,
    quality: str | None = None,
    worst: bool = False,
    within: str | float | None = None,
    guidance: Mapping[str, float] | None = None,
    # The network's details, the search, and where it runs.
    timesteps: Sequence[float] | Tensor | None = None,
    blocks: str = "blocks",
    held_out: tuple[Mapping[str, Condition], Tensor] | None = None,
    proxy: tuple[Mapping[str, Condition], Tensor] | None = None,
    search: str = "joint",
    effort: str = DEFAULT_EFFORT,
    align: bool = False,
    train: Trained | None = None,
    steps: Literal["auto"] | None = None,
    seed: int = 0,
    batch: int | None = None,
    work: str | PathLike[str] | None = None,
    weights: str | None = None,
    progress: Report | None = None,
) -> Compiled:
    """Search the best policy of a budget for a denoiser.

    Args:
        denoiser: a module called as (latents, timestep, condition), a pair (compute, reuse), or a `Denoiser`.
        conditioning: guidance branch -> condition of N calibration samples: a tensor (N, ...), or several by name.
        noise: (N, ...) initial latents, float32.
        scheduler: one for flow matching with one evaluation a step, such as diffusers' flow-matching Euler or UniPC.
        sigmas: steps + 1 noise levels, strictly decreasing, terminal value included.
        budget: evaluations per branch, or a factor such as "2.8x"; or one of the two that follow in its place.
        quality, worst: the smallest budget that keeps a bound such as "latent-mse<=0.01" on the samples that judge,
            also where the mean is one standard error worse; or the worst sample. `outcome.notes` has the curve.
        within: the largest budget whose loop of one sample takes at most so many seconds here.
        guidance: branch -> weight in the guided velocity, adding up to 1; needed where there are several branches.
        timesteps, blocks: what the network is given, default sigma times the training's; the name of its `ModuleList`.
        held_out: conditioning and noise of samples that nothing is selected on, for the report.
        proxy: conditioning and noise of smaller samples, on which masks are searched before a short search on the real.
        search, effort: algorithm and effort by name: "fast", "balanced" or "thorough".
        align, train: whether "both" (the default), "sigmas" (after the paper's search) or "coefficients" are trained.
        steps, seed, batch: "auto" lets a few plain steps be the policy; seed of what is drawn; samples of one forward.
        work, weights: folder to resume from; what names the network that it belongs to (default: a module's hash).
        progress: called with a pass's name, and how many of how many units are done; what it raises ends the search.

    Raises:
        BudcError: arguments that do not fit together; see also `parse_budget`, `Sigmas` and `linear_form`.
    """
    asked = asked_budget(budget, quality, within, worst=worst)
    check_choices(search, effort, steps, align=align, train=train, quality=quality is not None)
    seed, batch = check_execution(seed, batch, weights, progress)
    conditions, held_out_samples = sample_sets(conditioning, noise, held_out)
    smaller = proxy_samples(proxy, conditions)
    find = asked.find(search_through(smaller, search))
    branches = branch_weights(conditioning, guidance)
    schedule = noise_schedule(scheduler, sigmas, timesteps)
    network = as_denoiser(denoiser, branches, blocks, noise.device)
    nfe = asked.nfe(schedule.steps, 1 + len(network.first_steps(schedule.timesteps)))
    task = Task(
        network, schedule, conditions, nfe, ANNEALING, search, effort, seed, align, train or "both", batch=batch,
        few_step_schedule=schedule.resampled(nfe) if steps == "auto" else None,
    )  # fmt: skip
    origin = origin_of(task, held_out_samples, asked.text, hashed=weights is None, proxy=smaller)
    asked_on = [asked.text] if smaller is None else [asked.text, prompt_set(smaller).digest]
    resumed = resumable(work, task, branches, lambda: [network_identity(network, weights, blocks), *asked_on])
    return compiled(task, held_out_samples, origin, find, resumed, progress)
