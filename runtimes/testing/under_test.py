"""What a runtime must offer to be put to the tests."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from budc.runtimes.testing.watching import Array, Seen
from budc.schema.policy import PolicyDocument

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
