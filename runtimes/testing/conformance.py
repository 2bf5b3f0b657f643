"""The class of tests that every runtime must pass: what a policy does, and what a run leaves behind."""

import numpy as np
import pytest

from budc.runtimes.sampling.solvers import Scheduler
from budc.runtimes.testing.golden import BRANCHES, GOLDEN, STEPS, Golden
from budc.runtimes.testing.refusals import Refusals
from budc.runtimes.testing.under_test import RuntimeUnderTest
from budc.runtimes.testing.watching import Array, Seen, combined


class RuntimeConformance(Refusals):
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

    def assert_close(self, actual: Array, expected: Array) -> None:
        """Assert equality up to `tolerance` of the largest value."""
        assert actual.shape == expected.shape
        assert np.abs(actual - expected).max() <= self.tolerance * np.abs(expected).max()
