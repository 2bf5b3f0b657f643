"""The forwards of a run: each computes or reuses as the policy says for its step and branch."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from budc.runtimes.diffusers.denoiser import PolicyDenoiser
from budc.runtimes.diffusers.output_checks import OutputChecks
from budc.runtimes.sampling.schedulers import schedule_version, step_index
from budc.runtimes.sampling.steps import Compute, StepMachine
from budc.runtimes.sampling.trunk import combine
from budc.schema.errors import CalibrationMismatch, RefusedRun
from budc.schema.policy import PolicyDocument


class PolicyForwards:
    """Sets the trunk to compute or reuse before a forward (`enter`), and caches what it computed (`leave`).

    The step comes from the scheduler's state. Of several denoisers, the one that the policy has at that step must be
    the one that the pipeline calls. `machine` holds what is cached.
    """

    def __init__(
        self,
        document: PolicyDocument,
        scheduler: Any,
        denoisers: Sequence[PolicyDenoiser],
        output_checks: OutputChecks,
    ) -> None:
        self._document, self._sampler = document, document.sampler
        self._scheduler = scheduler
        self._denoisers = denoisers
        self._denoiser = denoisers[0]
        self._output_checks = output_checks
        self.machine = _machine(document)
        self._schedule: tuple[int, ...] = ()
        self._computing = False
        self.running = False

    @property
    def branches_at_step(self) -> tuple[str, ...]:
        """The branches that have run in the scheduler's current step."""
        return self.machine.branches_at(step_index(self._scheduler))

    def begin_run(self, document: PolicyDocument) -> None:
        """Start a run on the schedule that the scheduler has now, under the policy for the run's size."""
        if document != self._document:
            self._document, self._sampler = document, document.sampler
            self.machine = _machine(document)
        self._schedule = schedule_version(self._scheduler)
        self.running = True

    def end_run(self) -> None:
        """Let go of everything cached; the transformers run plainly until the next run."""
        self.running = self._computing = False
        self.machine.begin_run()
        for denoiser in self._denoisers:
            denoiser.trunk.clear()

    def enter(self, *branches: str, called: PolicyDenoiser | None = None) -> None:
        """Prepare the next forward, which runs `branches` in one batch.

        Args:
            branches: their names, in the order of their rows.
            called: the denoiser that the pipeline calls, where that is known.

        Raises:
            CalibrationMismatch: the schedule was changed, or the policy has another denoiser at this step, or no
                such branch.
            RefusedRun: a step was left out or repeated.
        """
        if schedule_version(self._scheduler) != self._schedule:
            raise CalibrationMismatch(
                "sigmas: the schedule was changed during the run, but the policy has its own",
                remedy="do not set sigmas or timesteps on the scheduler while a policy is applied",
            )
        index = step_index(self._scheduler)
        self._denoiser = self._denoisers[self._sampler.expert_at(index)]
        if called is not None and called is not self._denoiser:
            raise CalibrationMismatch(
                f"denoiser: the policy has {self._denoiser.name} at step {index}, "
                f"this pipeline runs {called.name}",
                remedy="use the pipeline's boundary_ratio that the policy was compiled for",
            )
        actions = [self.machine.step(branch, index) for branch in branches]
        cached = [action.cached for action in actions if not isinstance(action, Compute)]
        self._computing = not cached
        if self._computing:
            self._denoiser.trunk.set_compute()
        else:
            self._denoiser.trunk.set_reuse(cached[0] if len(cached) == 1 else torch.cat(cached))

    def leave(self, *branches: str) -> None:
        """Cache what the forward of `branches` computed, if it computed.

        Raises:
            RefusedRun: the transformer was not run.
            CalibrationMismatch: it had another number of tokens than the policy was calibrated for.
        """
        recorded = self._denoiser.trunk.clear()
        if not self._computing:
            return
        if recorded is None:
            names = " and ".join(repr(branch) for branch in branches)
            raise RefusedRun(f"branch {names}: the transformer was not run in a step that computes")
        self._output_checks.check_tokens(recorded.shape[1])
        if recorded.is_cuda and self._denoiser.is_compiled:
            # CUDA graphs write the next step's output into the same memory.
            recorded = recorded.clone()
        for branch, rows in zip(branches, recorded.chunk(len(branches)), strict=True):
            self.machine.record(branch, rows)


def _machine(document: PolicyDocument) -> StepMachine[Tensor]:
    return StepMachine(document.policy, combine, document.sampler.first_steps)
