"""Conformance: what every runtime must do with a policy, as a class of pytest tests to subclass.

    class TestMyRuntime(RuntimeConformance):
        @pytest.fixture
        def runtime(self) -> RuntimeUnderTest:
            return MyRuntime(...)

`RuntimeUnderTest` says what the tests need: a document that fits the model, a way to run one, and what was
seen during the run. `docs/runtime-guide.md` writes a runtime from nothing and puts it to these tests.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from budc.runtimes.solvers import Scheduler
from budc.runtimes.steps import BATCHED_BRANCHES, Compute, StepMachine
from budc.schema import canonical
from budc.schema.errors import BudcError, CalibrationMismatch, WeightsMismatch
from budc.schema.policy import BranchPolicy, Policy, PolicyDocument

Array = NDArray[Any]
BRANCHES = ("cond", "uncond")
STEPS = 6


@dataclass(frozen=True)
class Golden:
    """A policy of six steps and what it must do, written down by hand.

    `actions` has one character a step: C for compute, else how many residuals are combined. `uncond` holds
    rows of that branch where it has its own.
    """

    rows: Sequence[Sequence[float]]
    actions: str
    uncond: Sequence[Sequence[float]] | None = None
    uncond_actions: str | None = None
    sigmas: Sequence[float] | None = None

    def document(self, base: PolicyDocument) -> PolicyDocument:
        """Return `base` with this policy (and these sigmas) in place of its own."""
        if self.uncond is None:
            branches = [_branch(BRANCHES, self.rows)]
        else:
            branches = [_branch(("cond",), self.rows), _branch(("uncond",), self.uncond)]
        evaluations = {name: sum(b.mask) for b in branches for name in b.names}
        document = msgspec.structs.replace(
            base,
            policy=Policy(payload=base.policy.payload, branches=branches),
            budget=msgspec.structs.replace(base.budget, nfe=max(evaluations.values()), branches=evaluations),
        )
        if self.sigmas is None:
            return document
        sigmas = [float(np.float32(sigma)) for sigma in self.sigmas]
        timesteps = [float(np.float32(sigma) * np.float32(1000)) for sigma in sigmas[:-1]]
        sampler = msgspec.structs.replace(base.sampler, sigmas=sigmas, timesteps=timesteps)
        return msgspec.structs.replace(document, sampler=sampler)

    def expected(self, branch: str) -> str:
        """Return the actions of one branch."""
        return self.uncond_actions if branch == "uncond" and self.uncond_actions else self.actions


def _branch(names: Sequence[str], rows: Sequence[Sequence[float]]) -> BranchPolicy:
    return BranchPolicy(names=list(names), mask=[not row for row in rows], predictor=[list(r) for r in rows])


GOLDEN: Mapping[str, Golden] = {
    "plain reuse": Golden(((), (1.0,), (), (), (1.0,), (1.0,)), "C1CC11"),
    "two terms": Golden(((), (1.0,), (), (1.5, -0.5), (), (1.25, -0.25)), "C1C2C2"),
    "three terms": Golden(((), (1.0,), (), (), (1.5, -0.5), (1.25, -0.5, 0.25)), "C1CC23"),
    "a scaled residual": Golden(((), (0.875,), (1.25,), (), (0.5,), (1.0,)), "C11C11"),
    "aligned sigmas": Golden(
        ((), (1.0,), (), (1.5, -0.5), (), (1.0,)), "C1C2C1", sigmas=(0.99, 0.91, 0.84, 0.6, 0.42, 0.13, 0.0)
    ),
    "separate branches": Golden(
        ((), (1.0,), (), (), (1.5, -0.5), ()),
        "C1CC2C",
        uncond=((), (), (1.0,), (1.0,), (), (1.0,)),
        uncond_actions="CC11C1",
    ),
    "every step": Golden(((),) * 6, "CCCCCC"),
    "one evaluation": Golden(((), *((1.0,),) * 5), "C11111"),
}
"""Policies of every kind."""


@dataclass(frozen=True)
class Event:
    """One step of one branch, as the runtime's step machine was asked and answered."""

    branch: str
    step: int
    action: str
    """"C", or how many residuals were combined."""
    residual: Array
    """What the blocks added, or what was added in their place; (B, tokens, channels)."""


@dataclass
class Seen:
    """What was seen during a run; a run that raised leaves it partly filled."""

    events: list[Event] = field(default_factory=list)
    velocities: list[dict[str, Array]] = field(default_factory=list)
    """After each step, the velocity of each branch (B, ...)."""
    noise: Array | None = None
    latents: Array | None = None
    evaluations: int = 0
    """Samples that went through the blocks, counted where the blocks run and not by the machine."""
    held: int = 0
    """Residuals that the machine still held afterwards."""


OnStep = Callable[[int], object]


class RuntimeUnderTest(Protocol):
    """A runtime, its model and one prompt and seed, as the tests drive it."""

    @property
    def document(self) -> PolicyDocument:
        """A document that this model runs as it is: six steps, UniPC or Euler, branches cond and uncond."""

    def run(
        self,
        document: PolicyDocument,
        *,
        steps: int | None = None,
        on_step: OnStep | None = None,
        seen: Seen | None = None,
    ) -> Seen:
        """Run `document`, on a runtime that stays in place between calls where the document is the same.

        `steps` is how many the user asks for. `on_step` is called after each step: what it raises goes through
        the runtime, and where it returns False the run is ended by the runtime's own means of interruption.
        """

    def plain(self) -> Array:
        """Return the latents that the same model makes without any policy, for the document's schedule."""

    def adapter(self) -> AbstractContextManager[object]:
        """Change the model by an adapter, attached or merged, for the length of a with-block."""


def watch(machine: StepMachine[Any], read: Callable[[Any], Array], seen: Seen) -> Callable[[], None]:
    """Write down what a step machine is asked and told, until the function that is returned is called.

    `read` turns one of the machine's residuals into an array. Batched branches are written down one by one.
    """
    step, record = machine.step, machine.record
    at: dict[str, int] = {}

    def note(name: str, action: str, residual: Any) -> None:
        parts = BATCHED_BRANCHES.get(name, (name,))
        for part, rows in zip(parts, np.split(read(residual), len(parts)), strict=True):
            seen.events.append(Event(part, at[name], action, rows.copy()))

    def watched_step(name: str, index: int) -> Any:
        action = step(name, index)
        at[name] = index
        if not isinstance(action, Compute):
            plan = machine._plan(name)
            note(name, str(len(plan[index].coefficients)), action.residual)
        return action

    def watched_record(name: str, residual: Any) -> None:
        record(name, residual)
        note(name, "C", residual)

    vars(machine).update(step=watched_step, record=watched_record)

    def stop() -> None:
        del vars(machine)["step"], vars(machine)["record"]

    return stop


def combined(events: Sequence[Event], branch: str, row: Sequence[float], step: int) -> Array:
    """Return Σ_i row[i] · r_i over the residuals that a branch computed before `step`, newest first."""
    known = [e.residual for e in events if e.branch == branch and e.action == "C" and e.step < step]
    newest = known[::-1][: len(row)]
    total: Array = np.sum([c * r.astype(np.float64) for c, r in zip(row, newest, strict=True)], axis=0)
    return total


class RuntimeConformance:
    """The tests. A subclass defines the fixture `runtime`, and `tolerance` where it computes in half precision.

    Names of tests say what must hold.
    """

    tolerance = 1e-5
    """Of residuals and latents, relative to the largest value."""

    @pytest.fixture
    def runtime(self) -> RuntimeUnderTest:
        """Return the runtime to test."""
        raise NotImplementedError("define the fixture `runtime` in the subclass")

    @pytest.fixture(params=list(GOLDEN))
    def golden(self, request: pytest.FixtureRequest) -> Golden:
        """Return each of the policies in turn."""
        return GOLDEN[request.param]

    # What a policy does --------------------------------------------------------------------------------

    def test_every_step_does_what_the_policy_says(self, runtime: RuntimeUnderTest, golden: Golden) -> None:
        seen = runtime.run(golden.document(runtime.document))
        for branch in BRANCHES:
            steps = [event.step for event in seen.events if event.branch == branch]
            actions = "".join(event.action for event in seen.events if event.branch == branch)
            assert steps == list(range(STEPS))
            assert actions == golden.expected(branch)

    def test_the_blocks_run_as_often_as_the_budget_says(
        self, runtime: RuntimeUnderTest, golden: Golden
    ) -> None:
        document = golden.document(runtime.document)
        seen = runtime.run(document)
        samples = len(seen.events[0].residual)
        assert seen.evaluations == sum(document.budget.branches.values()) * samples

    def test_reused_residuals_are_the_combinations_of_computed_ones(
        self, runtime: RuntimeUnderTest, golden: Golden
    ) -> None:
        document = golden.document(runtime.document)
        events = runtime.run(document).events
        for event in events:
            row = document.policy.for_branch(event.branch).predictor[event.step]
            if event.action != "C":
                self.assert_close(event.residual, combined(events, event.branch, row, event.step))

    @pytest.mark.parametrize("terms", [2, 3])
    def test_terms_without_weight_change_nothing(self, runtime: RuntimeUnderTest, terms: int) -> None:
        # What is combined on a device, or in a graph, shows in the latents alone.
        plain, padded = (
            runtime.run(Golden(((), (), (), *(row,) * 3), "").document(runtime.document)).latents
            for row in ((1.0,), (1.0, *(1e-30,) * (terms - 1)))
        )
        assert plain is not None
        assert padded is not None
        self.assert_close(padded, plain)

    def test_latents_follow_the_exact_schedule(self, runtime: RuntimeUnderTest, golden: Golden) -> None:
        document = golden.document(runtime.document)
        seen = runtime.run(document)
        scheduler, guidance = Scheduler(document.sampler), document.sampler.guidance
        assert seen.noise is not None
        assert seen.latents is not None
        latents = seen.noise.astype(np.float32)
        assert len(seen.velocities) == STEPS
        for velocity in seen.velocities:
            guided = velocity["uncond"] + guidance * (velocity["cond"] - velocity["uncond"])
            latents = scheduler.step(guided, latents)
        self.assert_close(seen.latents, latents)

    def test_computing_every_step_is_the_model_without_a_policy(self, runtime: RuntimeUnderTest) -> None:
        seen = runtime.run(GOLDEN["every step"].document(runtime.document))
        assert seen.latents is not None
        self.assert_close(seen.latents, runtime.plain())

    def test_reuse_changes_the_result(self, runtime: RuntimeUnderTest) -> None:
        full, one = (
            runtime.run(GOLDEN[name].document(runtime.document)).latents
            for name in ("every step", "one evaluation")
        )
        assert full is not None
        assert one is not None
        assert np.abs(full - one).max() > 100 * self.tolerance * np.abs(full).max()

    # What a run leaves behind ----------------------------------------------------------------------------

    def test_a_run_can_be_repeated_bit_for_bit(self, runtime: RuntimeUnderTest, golden: Golden) -> None:
        document = golden.document(runtime.document)
        first, second = (runtime.run(document) for _ in range(2))
        np.testing.assert_array_equal(first.latents, second.latents)
        assert first.held == second.held == 0

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
    @pytest.mark.parametrize("step", [0, 2, 4])
    def test_an_exception_leaves_nothing_behind(
        self, runtime: RuntimeUnderTest, error: type[BaseException], step: int
    ) -> None:
        def stop(index: int) -> None:
            if index == step:
                raise error("stop")

        document = GOLDEN["three terms"].document(runtime.document)
        expected = runtime.run(document).latents
        seen = Seen()
        with pytest.raises(error, match="stop"):
            runtime.run(document, on_step=stop, seen=seen)
        assert max(event.step for event in seen.events) == step
        np.testing.assert_array_equal(runtime.run(document).latents, expected)

    @pytest.mark.parametrize("step", [0, 3])
    def test_an_interrupted_run_leaves_nothing_behind(self, runtime: RuntimeUnderTest, step: int) -> None:
        document = GOLDEN["three terms"].document(runtime.document)
        expected = runtime.run(document).latents
        seen = runtime.run(document, on_step=lambda index: index != step)
        assert max(event.step for event in seen.events) == step
        assert seen.held == 0
        np.testing.assert_array_equal(runtime.run(document).latents, expected)

    # What is refused -------------------------------------------------------------------------------------

    @pytest.mark.parametrize("steps", [1, 5, 7])
    def test_another_number_of_steps_is_refused(self, runtime: RuntimeUnderTest, steps: int) -> None:
        with pytest.raises(CalibrationMismatch, match=f"steps: the policy has 6, this run asks for {steps}"):
            runtime.run(runtime.document, steps=steps)

    @pytest.mark.parametrize("field", ["height", "width", "frames"])
    def test_another_shape_is_refused(self, runtime: RuntimeUnderTest, field: str) -> None:
        shape = runtime.document.shape
        actual = getattr(shape, field)
        other = msgspec.structs.replace(shape, **{field: actual + 16})
        document = msgspec.structs.replace(runtime.document, shape=other)
        self.refuses(runtime, document, CalibrationMismatch, f"{field}: .*{actual + 16}.*{actual}")

    def test_another_text_length_is_refused(self, runtime: RuntimeUnderTest) -> None:
        shape = runtime.document.shape
        assert shape.text_tokens is not None
        other = msgspec.structs.replace(shape, text_tokens=shape.text_tokens + 1)
        document = msgspec.structs.replace(runtime.document, shape=other)
        self.refuses(runtime, document, CalibrationMismatch, "text tokens: ")

    def test_another_scheduler_is_refused(self, runtime: RuntimeUnderTest) -> None:
        own = runtime.document.sampler.scheduler
        others = {"UniPCMultistepScheduler", "FlowMatchEulerDiscreteScheduler"} - {own}
        document = _with_sampler(runtime.document, scheduler=others.pop())
        self.refuses(runtime, document, CalibrationMismatch, f"scheduler: .*{own}")

    def test_another_setting_of_the_scheduler_is_refused(self, runtime: RuntimeUnderTest) -> None:
        config = {**runtime.document.sampler.config, "num_train_timesteps": 777}
        document = _with_sampler(runtime.document, config=config, config_digest=canonical.digest(config))
        self.refuses(runtime, document, CalibrationMismatch, r"scheduler\.num_train_timesteps: .*777.*1000")

    def test_a_branch_that_the_policy_does_not_have_is_refused(self, runtime: RuntimeUnderTest) -> None:
        branch = runtime.document.policy.branches[0]
        policy = Policy(
            payload=runtime.document.policy.payload,
            branches=[msgspec.structs.replace(branch, names=["cond"])],
        )
        budget = runtime.document.budget
        fewer = msgspec.structs.replace(budget, branches={"cond": budget.branches["cond"]})
        document = msgspec.structs.replace(runtime.document, policy=policy, budget=fewer)
        self.refuses(runtime, document, CalibrationMismatch, "branch: .*uncond")

    def test_other_weights_are_refused_by_digest(self, runtime: RuntimeUnderTest) -> None:
        model = runtime.document.model
        variants = [
            msgspec.structs.replace(
                variant,
                files={
                    name: "0" * 64 if name.startswith("transformer/") else digest
                    for name, digest in variant.files.items()
                },
            )
            for variant in model.variants
        ]
        document = msgspec.structs.replace(
            runtime.document, model=msgspec.structs.replace(model, variants=variants)
        )
        self.refuses(runtime, document, WeightsMismatch, "transformer/.* has sha256 .* expects 000000000000")

    def test_an_adapter_is_refused(self, runtime: RuntimeUnderTest) -> None:
        with runtime.adapter():
            # By name where it is attached, by the digest of the weights where it is merged into them.
            self.refuses(
                runtime, runtime.document, (CalibrationMismatch, WeightsMismatch), "adapters: |has sha256"
            )

    def refuses(
        self,
        runtime: RuntimeUnderTest,
        document: PolicyDocument,
        error: type[BudcError] | tuple[type[BudcError], ...],
        match: str,
    ) -> None:
        """Assert that a run of `document` raises, and computes nothing before."""
        seen = Seen()
        with pytest.raises(error, match=match):
            runtime.run(document, seen=seen)
        assert not seen.velocities

    def assert_close(self, actual: Array, expected: Array) -> None:
        """Assert equality up to `tolerance` of the largest value."""
        assert actual.shape == expected.shape
        assert np.abs(actual - expected).max() <= self.tolerance * np.abs(expected).max()


def _with_sampler(document: PolicyDocument, **fields: Any) -> PolicyDocument:
    return msgspec.structs.replace(document, sampler=msgspec.structs.replace(document.sampler, **fields))
