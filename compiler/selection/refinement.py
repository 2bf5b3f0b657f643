"""Refinement: all coefficients of a policy moved at once, to where its final latents are nearest to the full run's.

While a candidate is rolled out, each step's coefficients are fitted to bring the next state back (`tracked`). What an
early step does to the end goes through the network, which that fit does not see. Here it is measured, on a few prompts
and without gradients (`budc.compiler.rollouts.sensitivity`), and all coefficients take one Gauss-Newton step
(`budc.compiler.fitting.gauss_newton`). They are kept where an arbiter prefers them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from budc.compiler.denoisers.batched import BatchedDenoiser
from budc.compiler.fitting.gauss_newton import NormalEquations, best_move
from budc.compiler.rollouts.directions import directions, moved
from budc.compiler.rollouts.linear_form import LinearForm
from budc.compiler.rollouts.reference_run import ReferenceRun
from budc.compiler.rollouts.sensitivity import forwards_of_normal_equations, normal_equations
from budc.compiler.rollouts.workers import PromptSpan, SearchWorkers
from budc.compiler.selection.arbitration import Arbiter, Contender
from budc.compiler.selection.effort import REFINED_AT_ONCE
from budc.compiler.storage.journal import Journal
from budc.progress import progress
from budc.schema.policy import Policy

COMPARED_PASS = "refined policy"
"""What the label of the pass begins with that compares a policy with what it was before."""


class Refined(NamedTuple):
    """A policy after its coefficients were moved, the normal equations that moved them, and the forwards spent."""

    policy: Policy
    equations: tuple[NormalEquations, ...]
    forwards: int


@dataclass(frozen=True)
class Refiner:
    """Refines policies on the first of some prompts, whose reference run is known; the journal keeps what is measured.

    `network` puts the denoiser over prompts. Where there are `workers`, they measure.
    """

    form: LinearForm
    run: ReferenceRun
    network: Callable[[PromptSpan], BatchedDenoiser]
    journal: Journal
    workers: SearchWorkers | None = None

    def better(
        self, label: str, contender: Contender, prompts: int, arbiter: Arbiter
    ) -> tuple[Contender, int]:
        """Return a contender refined on so many prompts where the arbiter prefers that, and the forwards spent.

        Those of the comparison are the arbiter's. A note says which. `label` names the policy in the journal.

        Raises: see `refined`.
        """
        refined = self.refined(label, contender.result.policy, prompts)
        with progress(f"{COMPARED_PASS} on {len(arbiter.samples)} prompts", 1) as bar:
            loss = arbiter.loss(f"{label} refined", refined.policy, self.form)
            bar.advance()
        kept = loss < contender.loss
        note = f"coefficients refined on {prompts} prompts" if kept else "refinement gained nothing"
        result = replace(contender.result, notes=(*contender.result.notes, note))
        if kept:
            result = replace(result, policy=refined.policy)
        return Contender(min(loss, contender.loss), result, refined.equations), refined.forwards

    def refined(self, label: str, policy: Policy, prompts: int) -> Refined:
        """Return a policy refined on so many prompts; `label` names it in the journal.

        Raises:
            DeviceMemory: one sample does not fit into the memory of the device.
        """
        branches = self.network((0, 1)).branches
        along = directions(policy, branches)
        spans = [
            (first, min(first + REFINED_AT_ONCE, prompts)) for first in range(0, prompts, REFINED_AT_ONCE)
        ]
        fits = partial(_fits, len(along))
        keys = {span: f"refine {label} on {span[0]}-{span[1]}" for span in spans}
        known = {span: self.journal.get(keys[span], tuple[NormalEquations, ...], fits) for span in spans}
        with progress(f"refinement on {prompts} prompts", len(spans)) as bar:
            bar.advance(replayed=True, by=sum(own is not None for own in known.values()))
            for span, own in self._measured(policy, [span for span in spans if known[span] is None]):
                self.journal.put(keys[span], own)
                known[span] = own
                bar.advance()
        equations = tuple(own for span in spans for own in known[span] or ())
        move = best_move(equations)
        forwards = prompts * forwards_of_normal_equations(policy, branches)
        return Refined(moved(policy, branches, list(zip(along, move, strict=True))), equations, forwards)

    def measure(self, policy: Policy, span: PromptSpan) -> tuple[NormalEquations, ...]:
        """Return the normal equations of some prompts. Raises: see `refined`."""
        latents = self.run.part(*span).latents
        return tuple(normal_equations(self.network(span), self.form, policy, latents))

    def _measured(
        self, policy: Policy, spans: Sequence[PromptSpan]
    ) -> Iterator[tuple[PromptSpan, tuple[NormalEquations, ...]]]:
        if self.workers is not None:
            for position, equations in self.workers.measure(policy, spans):
                yield spans[position], equations
            return
        for span in spans:
            yield span, self.measure(policy, span)


def _fits(along: int, equations: Sequence[NormalEquations]) -> bool:
    return all(own.fits(along) for own in equations)
