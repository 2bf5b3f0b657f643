"""Conformance: what every runtime must do with a policy, as a class of pytest tests to subclass.

    class TestMyRuntime(RuntimeConformance):
        @pytest.fixture
        def runtime(self) -> RuntimeUnderTest:
            return MyRuntimeUnderTest(...)

`RuntimeUnderTest` is what you write for your runtime: a document that fits the model, a way to run one, and a record of
each run. `docs/runtime-guide.md` writes a whole runtime and runs these tests on it.
"""

from budc.runtimes.testing.conformance import RuntimeConformance
from budc.runtimes.testing.golden import BRANCHES, GOLDEN, STEPS, GoldenPolicy
from budc.runtimes.testing.recording import Array, RunRecord, StepRecord, predicted, record_steps
from budc.runtimes.testing.under_test import OnStep, RuntimeUnderTest

__all__ = [
    "BRANCHES",
    "GOLDEN",
    "STEPS",
    "Array",
    "GoldenPolicy",
    "OnStep",
    "RunRecord",
    "RuntimeConformance",
    "RuntimeUnderTest",
    "StepRecord",
    "predicted",
    "record_steps",
]
