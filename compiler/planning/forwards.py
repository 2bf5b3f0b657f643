"""Forwards: how many forwards of the model a compile runs, by stage.

    proxy          (with --proxy) full runs and candidates at a smaller size, in forwards of the real one
    calibration    full runs of the calibration prompts that its effort takes
    search         the candidates, which share the rollouts of common prefixes
    race           the finalists, on all prompts that are fitted, and moves of the winner's steps
    arbitration    the finalists, on the prompts that judge
    alignment      (with --align) full runs of further pairings of prompts and noise, training with a backward counted
                   as two forwards, and arbitration of the result; after the paper's search its second stage alone
    refinement     how final latents change with the winner's coefficients, and a rollout with better ones
    refit          (without these two) the winner's coefficients, fitted once more on judges and all
    report         full run, policy, uniform mask and fewer steps, on the held-out prompts

A forward is one sample of one branch. What an alignment computes again for its backward passes takes time, and is
counted apart (`recomputed`). Where losses decide how many candidates a search scores, it is run on made-up ones
(`budc.compiler.planning.dry_run`), so the search is an estimate with bounds. The race is what its finalists
would take if they shared nothing, as moves of the winner take what sharing saves. The other stages are exact. The
policies of a sweep share the full runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from budc.compiler.planning.count import Count
from budc.compiler.planning.dry_run import Given, dry_run, given_to
from budc.compiler.rollouts.node_memory import MEMORY, node_bytes
from budc.compiler.search import algorithm
from budc.compiler.selection.effort import AFTER_PROXY, DEFAULT_EFFORT, effort, evaluations_of_refinement
from budc.compiler.selection.stages import Stages, Trained, check_arbitrated, stages_of
from budc.compiler.selection.training_cost import Paired, paired, training_cost
from budc.compiler.training.forwards import RECOMPUTED, TrainingCost
from budc.policies.costs import Cost
from budc.policies.profile import ModelProfile
from budc.runtimes.sampling.rules import FIXED_RULES
from budc.runtimes.targets.deployment_target import DeploymentTarget
from budc.schema.policy import Payload


class ProxyCost(NamedTuple):
    """The profile of the size at which masks are searched, what a forward costs there, and its share of a real one."""

    profile: ModelProfile
    cost: Cost
    share: float


@dataclass(frozen=True)
class CompileSettings:
    """What the cost of a compile depends on: `budgets` are evaluations a branch, one or those of a sweep; `prompts` are
    calibration prompts, by default as many as the profile's.
    """

    profile: ModelProfile
    budgets: tuple[int, ...]
    steps: int
    search: str
    align: bool = False
    prompts: int | None = None
    effort: str = DEFAULT_EFFORT
    train: Trained = "both"
    """What `align` trains: the paper's search takes sigmas alone, its second stage, which nothing judges."""
    frame_loss: bool = False
    """Whether a second stage minimises LPIPS of decoded frames, in place of the error of latents."""
    engine: DeploymentTarget | None = None
    """The engine that the policies are for; None for budc's own runtimes."""
    proxy: ProxyCost | None = None
    """The smaller size at which masks are searched; None to search at the real one."""

    @property
    def calibration_size(self) -> int:
        """The number of calibration prompts."""
        return self.prompts or self.profile.prompts.calibration_size

    @property
    def held_out_size(self) -> int:
        """The number of held-out prompts that the effort reports on."""
        size, most = self.profile.prompts.held_out_size, effort(self.effort).report
        return size if most is None else min(most, size)

    @property
    def fixed_coefficients(self) -> bool:
        """Whether the engine that the policies are for has a rule of its own in place of coefficients."""
        return self.engine is not None and self.engine.rule in FIXED_RULES

    @property
    def second_stage(self) -> bool:
        """Whether the paper's second stage is trained."""
        return self.search == "paper" and self.align and self.train == "sigmas"

    @property
    def stages(self) -> Stages:
        """How many of the calibration prompts each stage is given: as many as the largest budget has.

        Raises:
            UsageError: see `check_arbitrated` and `stages_of`.
        """
        check_arbitrated(self.search, align=self.align, train=self.train)
        return stages_of(
            self.search, self.effort, max(self.budgets), self.calibration_size, arbitrates=self.align
        )


def forwards_by_stage(settings: CompileSettings, cost: Cost) -> Mapping[str, Count]:
    """Return stage -> forwards of a compile.

    Raises:
        UsageError: the calibration prompts are too few to leave one by which an alignment is judged, or the search
            cannot search these masks.
    """
    prompts, branches = settings.stages, len(settings.profile.branches)
    found: dict[str, list[Count]] = {"calibration": [Count.exactly(settings.steps * prompts.total)]}
    judged = settings.align and algorithm(settings.search).arbitrated
    pairs = paired(effort(settings.effort), prompts) if judged else None
    if pairs is not None:
        # Full runs of the further pairings of prompts and noise, which the policies of a sweep share.
        further = settings.steps * (sum(pairs) - prompts.total)
        found["alignment"] = [Count.exactly(further)]
    if settings.proxy is not None:
        found["proxy"] = [_of_proxy(settings, settings.proxy)]
    for nfe in settings.budgets:
        for stage, count in _of_budget(settings, cost, nfe, pairs).items():
            found.setdefault(stage, []).append(count)
    report = settings.steps + sum(3 * nfe for nfe in settings.budgets)
    found["report"] = [Count.exactly(report * settings.held_out_size)]
    return {stage: Count.total(counts).times(branches) for stage, counts in found.items()}


def recomputed(settings: CompileSettings) -> int:
    """Return how many forwards an alignment computes again for its backward passes, of which no stage counts any."""
    return sum(training.recomputed for training in _trainings(settings)) * len(settings.profile.branches)


def decoded_for_loss(settings: CompileSettings) -> int:
    """Return how many samples a training by decoded frames decodes: both of each pair, and both again."""
    return 2 * (1 + RECOMPUTED) * sum(training.epochs * training.train for training in _trainings(settings))


def _trainings(settings: CompileSettings) -> list[TrainingCost]:
    return [_training(settings, nfe) for nfe in settings.budgets] if settings.align else []


def _training(settings: CompileSettings, nfe: int) -> TrainingCost:
    branches = len(settings.profile.branches)
    return training_cost(settings.search, settings.effort, nfe, settings.stages, branches)


def _of_budget(settings: CompileSettings, cost: Cost, nfe: int, pairs: Paired | None) -> dict[str, Count]:
    """Return stage -> forwards a branch of what each policy takes for itself, the report left out."""
    prompts, given = settings.stages, effort(settings.effort)
    space = _given(settings, nfe)
    if settings.proxy is None:
        remembered = _remembered(settings, settings.search, cost, nfe)
        searched = dry_run(space, settings.search, given.share(nfe), remembered, prompts.groups)
    else:
        remembered = _remembered(settings, "joint", cost, nfe)
        searched = dry_run(space, "joint", min(AFTER_PROXY, given.share(nfe)), remembered, prompts.groups)
    finalists = min(prompts.finalists(given), searched.least // nfe)
    stages = {"search": searched.times(prompts.screen)}
    if prompts.races:
        stages["race"] = Count.exactly(finalists * nfe * prompts.fit)
    if pairs is not None:
        stages["arbitration"] = Count.exactly(finalists * nfe * pairs.judging)
        stages["alignment"] = Count.exactly(_training(settings, nfe).forwards + nfe * pairs.judging)
    elif settings.align:
        stages["alignment"] = Count.exactly(_training(settings, nfe).forwards)
    elif prompts.judge:
        stages["arbitration"] = Count.exactly(finalists * nfe * prompts.judge)
    if settings.fixed_coefficients:
        return stages
    if refined := _refined(settings, nfe):
        compared = pairs.judging if pairs is not None else prompts.judge or prompts.fit
        stages["refinement"] = Count.exactly(refined * evaluations_of_refinement(nfe) + nfe * compared)
    elif prompts.judge and pairs is None:
        stages["refit"] = Count.exactly(nfe * prompts.total)
    return stages


def _refined(settings: CompileSettings, nfe: int) -> int:
    """Return how many prompts a policy of `nfe` evaluations a branch is refined on."""
    if not algorithm(settings.search).arbitrated:
        return 0
    return effort(settings.effort).refined(nfe, settings.steps, settings.stages.fit)


def _of_proxy(settings: CompileSettings, proxy: ProxyCost) -> Count:
    """Return the forwards a branch of full runs and searches at a proxy's size, as shares of one at the real size."""
    given, search = effort(settings.effort), settings.search
    counts = [Count.exactly(settings.steps)]
    counts += [
        dry_run(
            _given(settings, nfe),
            search,
            given.share(nfe),
            _remembered(settings, search, proxy.cost, nfe) * settings.stages.groups,
        )
        for nfe in settings.budgets
    ]
    return Count.total(counts).times(settings.stages.screen).share(proxy.share)


def _given(settings: CompileSettings, nfe: int) -> Given:
    return given_to(settings.profile, nfe, settings.steps, settings.engine)


def _remembered(settings: CompileSettings, search: str, cost: Cost, nfe: int) -> int:
    """Return how many computed steps of its candidates a search remembers, where these cache what most of them do.

    That is the velocity where it may be reused, but for the reference searches, which reuse residuals alone.
    """
    velocities = algorithm(search).arbitrated and "velocity" in _given(settings, nfe).payloads
    payload: Payload = "velocity" if velocities else "trunk-residual"
    branches = len(settings.profile.branches)
    node = node_bytes(payload, cost.latents, cost.residual, branches, settings.steps // nfe)
    return MEMORY // max(node * settings.stages.screen * settings.stages.groups, 1)


def transfer_forwards(settings: CompileSettings) -> int:
    """Return the forwards of a transfer to this model in place of a search, of one policy for each budget.

    It runs the calibration prompts in full, with fitted coefficients and with the policy's own, refines the better
    ones, and reports the policy as it came, too.
    """
    largest, count = max(settings.budgets), 0
    prompts = stages_of(
        settings.search, settings.effort, largest, settings.calibration_size, arbitrates=False
    )
    for nfe in settings.budgets:
        count += (settings.steps + 2 * nfe) * prompts.total + (
            settings.steps + 4 * nfe
        ) * settings.held_out_size
        if refined := effort(settings.effort).refined(nfe, settings.steps, prompts.fit):
            count += refined * evaluations_of_refinement(nfe) + nfe * prompts.total
    return count * len(settings.profile.branches)
