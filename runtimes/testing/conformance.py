"""The tests that every runtime must pass: what a policy does, and what a run leaves behind."""

from collections.abc import Mapping

import numpy as np
import pytest

from budc.runtimes.sampling.solvers import Scheduler
from budc.runtimes.testing.golden import BRANCHES, GOLDEN, STEPS, GoldenPolicy
from budc.runtimes.testing.recording import Array, RunRecord, predicted
from budc.runtimes.testing.refusals import Refusals
from budc.runtimes.testing.under_test import RuntimeUnderTest
from budc.schema.policy import PolicyDocument


class RuntimeConformance(Refusals):
    """The tests. A subclass defines the fixture `runtime`, and a larger `tolerance` if it computes in half precision.

    The name of each test says what must hold.
    """

    tolerance = 1e-5
    """Accepted difference of cached tensors and latents, relative to the largest value."""

    @pytest.fixture
    def runtime(self) -> RuntimeUnderTest:
        """Return the runtime under test; a subclass must define it."""
        raise NotImplementedError("define the fixture `runtime` in the subclass")

    @pytest.fixture(params=list(GOLDEN))
    def golden(self, request: pytest.FixtureRequest, runtime: RuntimeUnderTest) -> GoldenPolicy:
        """Return each golden policy that the runtime's denoisers can run, in turn."""
        golden = GOLDEN[request.param]
        if not golden.fits(runtime.document.sampler.first_steps):
            pytest.skip("a second denoiser cannot reuse what the first has computed")
        return golden

    # What a policy does --------------------------------------------------------------------------------

    def test_every_step_does_what_the_policy_says(
        self, runtime: RuntimeUnderTest, golden: GoldenPolicy
    ) -> None:
        record = runtime.run(golden.document(runtime.document))
        for branch in BRANCHES:
            steps = [step for step in record.steps if step.branch == branch]
            assert [step.step for step in steps] == list(range(STEPS))
            assert "".join(step.action for step in steps) == golden.expected(branch)

    def test_the_blocks_run_as_often_as_the_budget_says(
        self, runtime: RuntimeUnderTest, golden: GoldenPolicy
    ) -> None:
        document = golden.document(runtime.document)
        record = runtime.run(document)
        samples = len(record.steps[0].cached)
        assert record.evaluations == sum(document.budget.branches.values()) * samples

    def test_each_denoiser_runs_its_own_steps(self, runtime: RuntimeUnderTest, golden: GoldenPolicy) -> None:
        document = golden.document(runtime.document)
        record = runtime.run(document)
        expected = [0] * (1 + len(document.sampler.experts))
        for step in record.steps:
            if step.action == "C":
                expected[document.sampler.expert_at(step.step)] += len(step.cached)
        assert (record.evaluations_of or [record.evaluations]) == expected

    def test_what_is_reused_is_the_combination_of_what_was_computed(
        self, runtime: RuntimeUnderTest, golden: GoldenPolicy
    ) -> None:
        document = golden.document(runtime.document)
        steps = runtime.run(document).steps
        for step in steps:
            row = document.policy.for_branch(step.branch).predictor[step.step]
            if step.action != "C":
                self.assert_close(step.cached, predicted(steps, step.branch, row, step.step))

    @pytest.mark.parametrize("terms", [2, 3])
    def test_terms_without_weight_change_nothing(self, runtime: RuntimeUnderTest, terms: int) -> None:
        # A runtime may combine on the device or in a graph, so only the latents show it.
        plain, padded = (
            GoldenPolicy(((), (), (), *(row,) * 3), "") for row in ((1.0,), (1.0, *(1e-30,) * (terms - 1)))
        )
        if not padded.fits(runtime.document.sampler.first_steps):
            pytest.skip("a second denoiser has not computed so many")
        expected, found = (runtime.run(each.document(runtime.document)).latents for each in (plain, padded))
        assert expected is not None
        assert found is not None
        self.assert_close(found, expected)

    def test_latents_follow_the_exact_schedule(self, runtime: RuntimeUnderTest, golden: GoldenPolicy) -> None:
        document = golden.document(runtime.document)
        record = runtime.run(document)
        scheduler = Scheduler(document.sampler)
        assert record.noise is not None
        assert record.latents is not None
        latents = record.noise.astype(np.float32)
        assert len(record.velocities) == STEPS
        for step, velocity in enumerate(record.velocities):
            guided = self.guided(velocity, document.sampler.guidance_at(step))
            latents = scheduler.step(guided, latents)
        self.assert_close(record.latents, latents)

    def test_computing_every_step_is_the_model_without_a_policy(self, runtime: RuntimeUnderTest) -> None:
        record = runtime.run(GOLDEN["every step"].document(runtime.document))
        assert record.latents is not None
        self.assert_close(record.latents, runtime.plain())

    def test_reuse_changes_the_result(self, runtime: RuntimeUnderTest) -> None:
        full, reused = (
            runtime.run(GOLDEN[name].document(runtime.document)).latents
            for name in ("every step", "plain reuse")
        )
        assert full is not None
        assert reused is not None
        assert np.abs(full - reused).max() > 100 * self.tolerance * np.abs(full).max()

    # What a run leaves behind ----------------------------------------------------------------------------

    def test_a_run_can_be_repeated_bit_for_bit(self, runtime: RuntimeUnderTest, golden: GoldenPolicy) -> None:
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

        document = self.document_of_several_terms(runtime)
        expected = runtime.run(document).latents
        record = RunRecord()
        with pytest.raises(error, match="stop"):
            runtime.run(document, on_step=stop, record=record)
        assert max(entry.step for entry in record.steps) == step
        np.testing.assert_array_equal(runtime.run(document).latents, expected)

    @pytest.mark.parametrize("step", [0, 3])
    def test_an_interrupted_run_leaves_nothing_behind(self, runtime: RuntimeUnderTest, step: int) -> None:
        document = self.document_of_several_terms(runtime)
        expected = runtime.run(document).latents
        record = runtime.run(document, on_step=lambda index: index != step)
        assert max(entry.step for entry in record.steps) == step
        assert record.held == 0
        np.testing.assert_array_equal(runtime.run(document).latents, expected)

    def guided(self, velocity: Mapping[str, Array], guidance: float) -> Array:
        """Return the guided velocity; a subclass says how, where its pipeline guides in another way."""
        guided: Array = velocity["uncond"] + guidance * (velocity["cond"] - velocity["uncond"])
        return guided

    def document_of_several_terms(self, runtime: RuntimeUnderTest) -> PolicyDocument:
        """Return a policy that keeps as many cached tensors as the runtime's denoisers allow."""
        three = GOLDEN["three terms"]
        golden = three if three.fits(runtime.document.sampler.first_steps) else GOLDEN["two terms twice"]
        return golden.document(runtime.document)

    def assert_close(self, actual: Array, expected: Array) -> None:
        """Assert equality up to `tolerance` of the largest value."""
        assert actual.shape == expected.shape
        assert np.abs(actual - expected).max() <= self.tolerance * np.abs(expected).max()
