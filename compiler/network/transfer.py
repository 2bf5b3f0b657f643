"""Transfer: a policy found on one network becomes one of another network with the same branches.

Masks and payload are kept. Of the policy's own coefficients and those fitted along one rollout, the ones that lose
less are taken, and refined. With `nearby`, a few masks near the policy's own are tried as well. The report is measured
on the new network, beside the policy as it came ("frozen").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from os import PathLike
from typing import Any

import msgspec
from torch import Tensor, nn

from budc.compiler.api_inputs import Pair, as_denoiser, check_scheduler
from budc.compiler.api_samples import sample_sets
from budc.compiler.api_settings import check_effort, check_execution, check_switch
from budc.compiler.denoisers.conditioning import Condition
from budc.compiler.denoisers.denoiser import Denoiser
from budc.compiler.fingerprint import network_identity, resumable
from budc.compiler.network.admission import Expected, expected_of
from budc.compiler.network.compiled import Compiled, SourcePolicy
from budc.compiler.network.finding import by
from budc.compiler.network.search import ANNEALING, compiled, origin_of
from budc.compiler.rollouts.schedule import NoiseSchedule
from budc.compiler.selection.effort import DEFAULT_EFFORT
from budc.compiler.selection.finder import Finder
from budc.compiler.selection.settings import choices
from budc.compiler.selection.task import SearchResult, Settings, Task
from budc.option_names import python_names
from budc.progress import Report
from budc.runtimes.admission.trust import Source
from budc.schema.canonical import digest
from budc.schema.errors import UnsupportedModel, UsageError
from budc.schema.trust import Trust


@python_names()
def transfer_policy(
    source: Source | Compiled,
    denoiser: nn.Module | Pair | Denoiser,
    *,
    conditioning: Mapping[str, Condition],
    noise: Tensor,
    scheduler: Any,
    guidance: Mapping[str, float] | None = None,
    blocks: str | None = None,
    held_out: tuple[Mapping[str, Condition], Tensor] | None = None,
    nearby: bool = False,
    effort: str = DEFAULT_EFFORT,
    seed: int = 0,
    batch: int | None = None,
    work: str | PathLike[str] | None = None,
    weights: str | None = None,
    trust: Trust | str | PathLike[str] | None = None,
    allow_unsigned: bool = False,
    progress: Report | None = None,
) -> Compiled:
    """Move a policy to another network: another size or fine-tune of the one that it was found on.

    Args:
        source: the policy: an artifact of a network, or what `compile_policy` returned.
        denoiser, conditioning, noise, scheduler, held_out: as for `compile_policy`, on the new network. Sigmas and
            timesteps are the policy's.
        guidance, blocks: as for `compile_policy`; by default those of the policy.
        nearby: try a few masks near the policy's own as well.
        effort, seed, batch, work, weights, progress: as for `compile_policy`.
        trust, allow_unsigned: as for `budc.run`.

    Raises:
        UsageError, UnsupportedModel: arguments that do not fit together or to the policy.
        CompileError: final latents are not finite with the policy's masks.
        BudcError: see `compile_policy`.
    """
    check_effort(effort)
    check_switch("nearby", nearby)
    seed, batch = check_execution(seed, batch, weights, progress)
    check_scheduler(scheduler)
    expected = expected_of(source, trust, allow_unsigned)
    conditions, held_out_samples = sample_sets(conditioning, noise, held_out)
    schedule = NoiseSchedule.of(scheduler, expected.sampler.sigmas, expected.sampler.timesteps)
    weighted = dict(guidance or expected.guidance[0])
    network = as_denoiser(denoiser, weighted, blocks or expected.blocks[0] or "blocks", noise.device)
    _check(expected, network, conditioning, schedule)
    nfe = max(sum(branch.mask) for branch in expected.policy.branches)
    task = Task(network, schedule, conditions, nfe, ANNEALING, effort=effort, seed=seed, batch=batch)
    moved = SourcePolicy(expected.policy, expected.policy_id)
    origin = origin_of(task, held_out_samples, str(nfe), hashed=weights is None, source=moved)

    def identity() -> list[object]:
        source_policy = digest(msgspec.to_builtins([expected.policy, expected.sampler]))
        return [network_identity(network, weights, blocks or ""), source_policy, nearby]

    resumed = resumable(work, task, weighted, identity)
    found = _nearby(expected) if nearby else _kept(expected)
    return compiled(task, held_out_samples, origin, by(found), resumed, progress)


def _check(
    expected: Expected, network: Denoiser, conditioning: Mapping[str, Condition], schedule: NoiseSchedule
) -> None:
    """Refuse a network with other branches than the policy, or one whose experts take over at other steps."""
    branches = {name for branch in expected.policy.branches for name in branch.names}
    for what, names in (("conditioning", set(conditioning)), ("denoiser", set(network.branches))):
        if names != branches:
            raise UsageError(
                f"{what} has the branches {sorted(map(str, names))}, the policy has {sorted(branches)}",
                remedy="use the branches of the policy, or compile one for others",
            )
    first_steps, wanted = network.first_steps(schedule.timesteps), expected.sampler.first_steps
    if tuple(first_steps) != wanted:
        raise UnsupportedModel(
            f"denoiser: its networks take over at the steps {list(first_steps)}, the policy's at {list(wanted)}",
            remedy="compile a policy for this network",
        )


def _kept(expected: Expected) -> Callable[[Finder], SearchResult]:
    """Return what keeps the policy's masks, with coefficients for the network."""

    def find(finder: Finder) -> SearchResult:
        settings: Settings = {"effort": finder.task.effort, "nearby": False, "from": expected.name}
        result = finder.transferred(expected.policy)
        return replace(result, settings={**settings, **choices(result.notes)})

    return find


def _nearby(expected: Expected) -> Callable[[Finder], SearchResult]:
    """Return what searches masks near the policy's own, which all branches share."""
    masks = {branch.step_mask() for branch in expected.policy.branches}
    if len(masks) > 1:
        raise UsageError(
            "nearby: the policy's guidance branches have masks of their own",
            remedy="leave it out: the masks then stay, and coefficients are fitted",
        )
    steps = masks.pop().compute_steps

    def find(finder: Finder) -> SearchResult:
        result = finder.find(replace(finder.task, search="nearby", published_masks=(steps,)))
        settings = {**result.settings, "nearby": True, "from": expected.name}
        return replace(result, settings=settings)

    return find
