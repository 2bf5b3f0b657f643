"""Tests of refusals: settings, branches and weights other than the policy's, and adapters."""

from typing import Any

import msgspec
import pytest

from budc.runtimes.testing.recording import RunRecord
from budc.runtimes.testing.under_test import RuntimeUnderTest
from budc.schema import canonical
from budc.schema.errors import BudcError, CalibrationMismatch, WeightsMismatch
from budc.schema.policy import Policy, PolicyDocument


class Refusals:
    """The tests in which a run must be refused; they use the fixture `runtime`."""

    @pytest.mark.parametrize("steps", [1, 5, 7])
    def test_another_number_of_steps_is_refused(self, runtime: RuntimeUnderTest, steps: int) -> None:
        with pytest.raises(CalibrationMismatch, match=f"steps: the policy has 6, this run asks for {steps}"):
            runtime.run(runtime.document, steps=steps)

    @pytest.mark.parametrize("field", ["height", "width", "frames"])
    def test_another_shape_is_refused(self, runtime: RuntimeUnderTest, field: str) -> None:
        shape = runtime.document.pipeline().shape
        actual = getattr(shape, field)
        other = msgspec.structs.replace(shape, **{field: actual + 16})
        document = msgspec.structs.replace(runtime.document, shape=other)
        self.refuses(runtime, document, CalibrationMismatch, f"{field}: .*{actual + 16}.*{actual}")

    def test_another_text_length_is_refused(self, runtime: RuntimeUnderTest) -> None:
        shape = runtime.document.pipeline().shape
        assert shape.text_tokens is not None
        other = msgspec.structs.replace(shape, text_tokens=shape.text_tokens + 1)
        document = msgspec.structs.replace(runtime.document, shape=other)
        self.refuses(runtime, document, CalibrationMismatch, "text tokens: ")

    def test_another_scheduler_is_refused(self, runtime: RuntimeUnderTest) -> None:
        scheduler = runtime.document.sampler.scheduler
        others = {"UniPCMultistepScheduler", "FlowMatchEulerDiscreteScheduler"} - {scheduler}
        document = _with_sampler(runtime.document, scheduler=others.pop())
        self.refuses(runtime, document, CalibrationMismatch, f"scheduler: .*{scheduler}")

    def test_another_setting_of_the_scheduler_is_refused(self, runtime: RuntimeUnderTest) -> None:
        config = {**runtime.document.sampler.config, "num_train_timesteps": 777}
        document = _with_sampler(runtime.document, config=config, config_digest=canonical.digest(config))
        self.refuses(runtime, document, CalibrationMismatch, r"scheduler\.num_train_timesteps: .*777.*1000")

    def test_a_branch_that_the_policy_does_not_have_is_refused(self, runtime: RuntimeUnderTest) -> None:
        branch = runtime.document.policy.branches[0]
        policy = Policy.of(runtime.document.policy.payload, {"cond": branch.predictor})
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
        # Other bytes may be the same model, saved again; other tensors are not.
        denoisers = [
            msgspec.structs.replace(denoiser, tensor_root="sha256:" + "0" * 64)
            for denoiser in model.denoisers
        ]
        document = msgspec.structs.replace(
            runtime.document,
            model=msgspec.structs.replace(model, variants=variants, denoisers=denoisers),
        )
        self.refuses(
            runtime,
            document,
            WeightsMismatch,
            "transformer/.* has sha256 .* expects 000000000000|transformer in .* the policy is for 000000000000",
        )

    def test_an_adapter_is_refused(self, runtime: RuntimeUnderTest) -> None:
        with runtime.adapter():
            # Refused by name if it is attached, by the digest of the weights if it is merged into them.
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
        """Assert that a run of `document` raises in its first step at the latest."""
        record = RunRecord()
        with pytest.raises(error, match=match):
            runtime.run(document, record=record)
        assert not record.velocities


def _with_sampler(document: PolicyDocument, **fields: Any) -> PolicyDocument:
    return msgspec.structs.replace(document, sampler=msgspec.structs.replace(document.sampler, **fields))
