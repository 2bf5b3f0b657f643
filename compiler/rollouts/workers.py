"""Workers: other processes with the same model and prompts, which compute in place of this one.

They write chunks into the journal's folder, and hand back the records for the journal: that is written here alone, so
a compile that is resumed does not ask who has computed what. Whatever method is called yields results as they are
finished, in any order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from budc.compiler.fitting.gauss_newton import NormalEquations
from budc.compiler.fitting.trajectory import CoefficientRows
from budc.compiler.search.space import Candidate
from budc.compiler.storage.tensors import Records, Span
from budc.schema.policy import Policy, SamplerBinding

PromptSpan = tuple[int, int]
"""The first of some prompts in a row, and the one after the last."""


class FittedCandidate(NamedTuple):
    """A candidate's squared errors per prompt, and its coefficients per step and branch."""

    errors: tuple[float, ...]
    rows: tuple[CoefficientRows, ...]


class SearchWorkers(Protocol):
    """Workers of a search, on its calibration prompts."""

    def reference_chunks(self, spans: Sequence[Span]) -> Iterator[Records]:
        """Make these chunks of the reference run."""

    def roll_out(
        self, spans: Sequence[PromptSpan], candidates: Sequence[Candidate]
    ) -> Iterator[tuple[int, FittedCandidate]]:
        """Roll out candidates, each on its prompts; yield each with its position."""

    def measure(
        self, policy: Policy, spans: Sequence[PromptSpan]
    ) -> Iterator[tuple[int, tuple[NormalEquations, ...]]]:
        """Measure how final latents change with a policy's coefficients; yield each span's with its position."""

    def arbitrate(self, policies: Mapping[str, Policy]) -> Iterator[Records]:
        """Measure policies, by the label that they have in the journal, on the prompts that judge."""


class ReportWorkers(Protocol):
    """Workers of a report, on its held-out prompts."""

    def latents(
        self, label: str, policy: Policy, sampler: SamplerBinding, spans: Sequence[Span]
    ) -> Iterator[Records]:
        """Roll a policy out, and keep chunks of its final latents under a label."""

    def frames(
        self, label: str, latents: Mapping[str, Tensor], reference: Tensor, missing: Sequence[int]
    ) -> Iterator[Records]:
        """Measure the frames of the `missing` samples among final latents (N, ...)."""
