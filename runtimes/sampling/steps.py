"""The step machine: whether each step computes or reuses, and the few cached tensors that reuse needs.

    machine = StepMachine(policy, combine)
    machine.begin_run()
    match machine.step("cond", 0):
        case Compute():
            machine.record("cond", cached)            # what later steps reuse
        case Reuse(cached):
            ...                                       # r̂ = Σ_i c_i · r_i, already combined

It imports no framework: what is cached, trunk residuals or velocities, may be of any type that `combine` can add
up (torch, numpy, ONNX Runtime). The caller takes the step from the scheduler's own state and the branch from the
pipeline's own name for it; nothing is counted here.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from budc.runtimes.sampling.step_plan import PlannedStep, plan_branch
from budc.schema.errors import CalibrationMismatch, RefusedRun
from budc.schema.policy import Policy

R = TypeVar("R")

BATCHED_BRANCHES: Mapping[str, tuple[str, ...]] = {"cond_uncond": ("cond", "uncond")}
"""Names under which some pipelines run several branches in one forward, and the branches that are in it."""


@dataclass(frozen=True)
class Compute:
    """Run the blocks, then hand what is to be cached to `StepMachine.record`."""


@dataclass(frozen=True)
class Reuse(Generic[R]):
    """Use this instead of running the blocks."""

    cached: R


@dataclass
class _Branch(Generic[R]):
    plan: tuple[PlannedStep, ...]
    at: int
    awaiting: bool = False
    cached: list[R] = field(default_factory=list)


class StepMachine(Generic[R]):
    """Runs a policy over the steps of one generation, for every guidance branch by name.

    `combine(coefficients, cached)` returns Σ_i coefficients[i] · cached[i]; both are newest first and
    of one length. Branches are independent. A branch starts anew at its step 0, so what an interrupted run left
    behind is never used. `first_steps`: see `plan_branch`.
    """

    def __init__(
        self,
        policy: Policy,
        combine: Callable[[Sequence[float], Sequence[R]], R],
        first_steps: Collection[int] = (),
    ) -> None:
        self._combine = combine
        self._plans: dict[str, tuple[PlannedStep, ...]] = {}
        for branch in policy.branches:
            plan = plan_branch(branch.mask, branch.predictor, first_steps)
            self._plans.update(dict.fromkeys(branch.names, plan))
        self._branches: dict[str, _Branch[R]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The branches that the policy names."""
        return tuple(self._plans)

    @property
    def held(self) -> int:
        """How many cached tensors are in memory now, over all branches."""
        return sum(len(branch.cached) for branch in self._branches.values())

    def branches_at(self, step: int) -> tuple[str, ...]:
        """Return those of `names` that are at `step` now, by themselves or in a batch with others."""
        entered = [name for name, branch in self._branches.items() if branch.at == step]
        running = {branch for name in entered for branch in (name, *BATCHED_BRANCHES.get(name, ()))}
        return tuple(name for name in self.names if name in running)

    def begin_run(self) -> None:
        """Forget everything: a run starts, or one has ended early."""
        self._branches.clear()

    def step(self, branch: str, step: int) -> Compute | Reuse[R]:
        """Return what to do at `step` (0-based) of `branch`.

        Raises:
            CalibrationMismatch: the policy has no such branch, or not so many steps.
            RefusedRun: a step was left out or repeated, the run did not start at step 0, or nothing was recorded
                in a computed step.
        """
        state = self._enter(branch, step)
        planned = state.plan[step]
        if planned.computed:
            state.awaiting = True
            return Compute()
        cached = self._combine(planned.coefficients, state.cached[: len(planned.coefficients)])
        del state.cached[planned.keep :]
        return Reuse(cached)

    def record(self, branch: str, cached: R) -> None:
        """Cache what `branch` has computed, after `step` returned `Compute`.

        Raises:
            RefusedRun: the branch is not in a computed step, or has recorded in it already (the model ran twice).
        """
        state = self._branches.get(branch)
        if state is None or not state.awaiting:
            raise RefusedRun(
                f"branch {branch!r}: the transformer ran where no step was to be computed",
                remedy="run the transformer once per branch and step",
            )
        state.awaiting = False
        state.cached.insert(0, cached)
        del state.cached[state.plan[state.at].keep :]

    def _enter(self, branch: str, step: int) -> _Branch[R]:
        if step == 0:
            self._branches[branch] = _Branch(self._plan(branch), at=0)
            return self._branches[branch]
        state = self._branches.get(branch)
        if state is None:
            self._plan(branch)
            raise RefusedRun(
                f"branch {branch!r} starts at step {step}, but a policy starts at step 0",
                remedy="run all steps of the schedule (no image-to-image strength, no denoising start)",
            )
        if state.awaiting:
            raise RefusedRun(
                f"branch {branch!r}: step {state.at} was to be computed, but the transformer did not run",
                remedy="run the transformer once per branch and step",
            )
        if step >= len(state.plan):
            raise CalibrationMismatch(
                f"steps: the policy has {len(state.plan)}, this run asks for step {step} (counted from 0)"
            )
        if step != state.at + 1:
            raise RefusedRun(
                f"branch {branch!r} went from step {state.at} to step {step}",
                remedy="run every step once and in order; call the scheduler's set_timesteps before each run",
            )
        state.at = step
        return state

    def _plan(self, branch: str) -> tuple[PlannedStep, ...]:
        if branch in self._plans:
            return self._plans[branch]
        plans = [self._plans.get(name) for name in BATCHED_BRANCHES.get(branch, ())]
        if plans and plans[0] is not None and all(plan == plans[0] for plan in plans):
            return plans[0]
        names = ", ".join(self._plans)
        if plans and all(plan is not None for plan in plans):
            raise CalibrationMismatch(
                f"branch: the policy has separate masks for {names}, "
                f"this pipeline runs them in one forward ({branch})",
                remedy="use a policy whose branches share one mask",
            )
        raise CalibrationMismatch(
            f"branch: the policy has {names}, this run asks for {branch}",
            remedy="use the pipeline and the guidance that the policy was compiled for",
        )
