"""Conformance: what every runtime must do with a policy, as a class of pytest tests to subclass.

    class TestMyRuntime(RuntimeConformance):
        @pytest.fixture
        def runtime(self) -> RuntimeUnderTest:
            return MyRuntime(...)

`RuntimeUnderTest` says what the tests need: a document that fits the model, a way to run one, and what was
seen during the run. `docs/runtime-guide.md` writes a runtime from nothing and puts it to these tests.
"""

from budc.runtimes.testing.conformance import RuntimeConformance
from budc.runtimes.testing.golden import BRANCHES, GOLDEN, STEPS, Golden
from budc.runtimes.testing.under_test import OnStep, RuntimeUnderTest
from budc.runtimes.testing.watching import Array, Event, Seen, combined, watch

__all__ = [
    "BRANCHES",
    "GOLDEN",
    "STEPS",
    "Array",
    "Event",
    "Golden",
    "OnStep",
    "RuntimeConformance",
    "RuntimeUnderTest",
    "Seen",
    "combined",
    "watch",
]
