"""What a runtime offers to the tests."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from budc.runtimes.testing.recording import Array, RunRecord
from budc.schema.policy import PolicyDocument

OnStep = Callable[[int], object]
"""Called after each step with its index, 0-based; returning False ends the run there."""


class RuntimeUnderTest(Protocol):
    """A runtime with one model, one prompt and one seed, which never change between runs.

    You write this class for your runtime. `RuntimeConformance` calls it and nothing else of yours.
    """

    @property
    def document(self) -> PolicyDocument:
        """A document that the model runs without a refusal.

        It has six steps, the scheduler UniPC or flow-matching Euler, a text length, and the guidance branches cond
        and uncond with guidance over 1. A second denoiser, if there is one, takes over at step 3. The tests replace
        its policy, sigmas, budget, or one setting.
        """

    def run(
        self,
        document: PolicyDocument,
        *,
        steps: int | None = None,
        on_step: OnStep | None = None,
        record: RunRecord | None = None,
    ) -> RunRecord:
        """Run `document` on the model, and return the record of the run.

        Args:
            document: the policy to run. If it is the same object as in the last call, use the same runtime object,
                so that the tests see what a run leaves behind.
            steps: the number of steps that a user asks for, default the policy's.
            on_step: called after each step. What it raises must pass through the runtime; if it returns False, end
                the run there by the runtime's own means.
            record: where to record, so that it can be read after an error; default a new one. `RunRecord` says what
                to fill in, and `record_steps` does the first part.

        Raises:
            CalibrationMismatch: the document is for other settings than the model's, or `steps` is another number.
            WeightsMismatch: the document is for other weights. Every refusal comes before anything is computed.
        """

    def plain(self) -> Array:
        """Return the final latents (B, ...) of the same model, prompt and seed without any policy.

        The scheduler and its default sigmas are those of `document`.
        """

    def adapter(self) -> AbstractContextManager[object]:
        """Return a context manager in which the model has an adapter: attached, or merged into its files.

        `run` must refuse the model as long as the context lasts, with `CalibrationMismatch` about "adapters" or with
        `WeightsMismatch`.
        """
