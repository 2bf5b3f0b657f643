"""Driver: one policy at work on one pipeline instance, from `arm` to `remove`.

The pipeline is asked nothing new: its own calls say all there is to know.

- `scheduler.set_timesteps` starts a run; the exact schedule is put in place after the original has run.
- `transformer.cache_context(branch)` surrounds every forward: the step comes from the scheduler's state, the
  trunk is set to compute or reuse, and what was computed is handed to the step machine on the way out. Of several
  denoisers, the one that the policy has at that step must be the one that is called.
- `scheduler.step` ends a step. A pipeline that names no branches is noticed here; where the policy has a
  single branch, or its branches are known to come in one batched forward, that forward is driven from here: each
  branch's rows with its own coefficients, all of them computed or all reused.
- `prepare_latents` and `encode_prompt` show the size and the text length before anything is computed.

All of it lies outside of what `torch.compile` traces: two graphs, whatever the number of steps.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from budc.runtimes.admission.settings import SettingsCheck
from budc.runtimes.diffusers.checks import (
    check_experts,
    check_guidance,
    check_sampler,
    check_schedule,
    unnamed_branches,
)
from budc.runtimes.diffusers.denoiser import PolicyDenoiser
from budc.runtimes.diffusers.method_patch import MethodPatch
from budc.runtimes.diffusers.output_checks import OutputChecks
from budc.runtimes.sampling.schedulers import apply_schedule, schedule_version, step_index
from budc.runtimes.sampling.steps import Compute, StepMachine
from budc.runtimes.sampling.trunk import combine
from budc.schema.errors import BudcError, CacheConflict, CalibrationMismatch, RefusedRun
from budc.schema.policy import PolicyDocument


class AppliedPolicy:
    """A policy applied to a pipeline. `remove()` undoes it completely; `uncalibrated` says what differed.

    Made by `budc.runtimes.diffusers.apply.apply`, after the artifact, the model and the sampler have been checked.
    """

    def __init__(self, pipe: Any, document: PolicyDocument, calibration: SettingsCheck) -> None:
        self.pipe = pipe
        self.document = document
        self.calibration = calibration
        self._standing = dict(calibration.differences)
        self._scheduler = pipe.scheduler
        self._denoisers = tuple(
            PolicyDenoiser(pipe, denoiser.name, document.policy.payload)
            for denoiser in document.model.denoisers
        )
        self._now = self._denoisers[0]
        self._family = self._now.trunk.family
        self._asked = OutputChecks(pipe, self._now.transformer, document, calibration, self._family)
        self._machine: StepMachine[Tensor] = StepMachine(
            document.policy, combine, document.sampler.first_steps
        )
        self._overrides: dict[str, MethodPatch] = {}
        self._schedule: tuple[int, ...] = ()
        self._running = False
        self._named = False
        self._computing = False
        self._over = True

    @property
    def uncalibrated(self) -> tuple[str, ...]:
        """What differs from the calibration, now and in the last run; empty means calibrated."""
        return tuple((self._standing | self.calibration.differences).values())

    def arm(self) -> None:
        """Put everything in place, or nothing.

        Raises:
            CacheConflict: another cache or another policy is on a transformer or on the scheduler.
        """
        if isinstance(vars(self._scheduler).get("set_timesteps"), MethodPatch):
            raise CacheConflict(
                "a policy is applied with this scheduler already",
                remedy="remove the first handle, or give each pipeline a scheduler of its own",
            )
        try:
            for denoiser in self._denoisers:
                denoiser.arm(partial(self._cache_context, denoiser))
        except BaseException:
            self.remove()
            raise
        self._override(self._scheduler, "set_timesteps", self._set_timesteps)
        self._override(self._scheduler, "step", self._step)
        self._override(self.pipe, "prepare_latents", self._prepare_latents)
        self._override(self.pipe, "encode_prompt", self._encode_prompt)
        self._override(self.pipe, "maybe_free_model_hooks", self._maybe_free_model_hooks)

    def remove(self) -> None:
        """Leave the pipeline as it was before; calling it again does nothing."""
        self._end_run()
        for override in reversed(self._overrides.values()):
            override.remove()
        self._overrides.clear()
        for denoiser in self._denoisers:
            denoiser.remove()

    def _override(self, owner: Any, name: str, replacement: Any) -> None:
        if hasattr(owner, name):
            self._overrides[name] = MethodPatch(owner, name, replacement)

    def _original(self, name: str) -> Any:
        return self._overrides[name].original

    # A run, from set_timesteps to the pipeline's clean-up ------------------------------------------------

    def _set_timesteps(self, *args: Any, **kwargs: Any) -> Any:
        self._fresh()
        self._end_run()
        result = self._original("set_timesteps")(*args, **kwargs)
        sampler = self.document.sampler
        check_schedule(self.document, len(self._scheduler.timesteps), kwargs, self._family)
        apply_schedule(self._scheduler, sampler.sigmas, sampler.timesteps)
        self._schedule = schedule_version(self._scheduler)
        self._check_run()
        self._running, self._named = True, False
        if self._implicit:
            self._enter(*self._implicit)
        return result

    def _check_run(self) -> None:
        document, calibration = self.document, self.calibration
        for denoiser in self._denoisers:
            denoiser.check(document, calibration)
        check_sampler(document, self._scheduler, calibration)
        check_experts(document, self.pipe)
        check_guidance(document, self.pipe, calibration, self._family)

    def _end_run(self) -> None:
        self._running = self._computing = False
        self._machine.begin_run()
        for denoiser in self._denoisers:
            denoiser.trunk.clear()

    def _maybe_free_model_hooks(self) -> Any:
        # The last thing a pipeline does, interrupted or not: residuals of a run cut short are let go here.
        self._end_run()
        self._over = True
        return self._original("maybe_free_model_hooks")()

    def _fresh(self) -> None:
        # The first of the pipeline's calls in a run, whichever it is, clears what the run before was told of.
        if self._over:
            self.calibration.begin_run()
            self._over = False

    # One forward -----------------------------------------------------------------------------------------

    @contextmanager
    def _cache_context(self, denoiser: PolicyDenoiser, name: str, **kwargs: Any) -> Iterator[None]:
        with denoiser.cache_context(name, **kwargs):
            try:
                if not self._running:
                    raise self._not_running()
                check_guidance(self.document, self.pipe, self.calibration, self._family)
                self._named = True
                self._enter(name, called=denoiser)
                yield
                self._leave(name)
            except BaseException:
                self._end_run()
                self._over = True
                raise

    def _not_running(self) -> BudcError:
        if self.pipe.scheduler is not self._scheduler:
            return CalibrationMismatch(
                f"scheduler: the policy was applied with {type(self._scheduler).__name__}, "
                f"the pipeline was given another since ({type(self.pipe.scheduler).__name__})",
                remedy="set the scheduler first, then apply the policy",
            )
        return RefusedRun(
            "the transformer was called without a run: no set_timesteps on the scheduler before it",
            remedy="call the pipeline, or the scheduler's set_timesteps before each run of your own loop",
        )

    def _enter(self, *branches: str, called: PolicyDenoiser | None = None) -> None:
        if schedule_version(self._scheduler) != self._schedule:
            raise CalibrationMismatch(
                "sigmas: the schedule was changed during the run, the policy has its own",
                remedy="do not set sigmas or timesteps on the scheduler while a policy is applied",
            )
        index = step_index(self._scheduler)
        self._now = self._denoisers[self.document.sampler.expert_at(index)]
        if called is not None and called is not self._now:
            raise CalibrationMismatch(
                f"denoiser: the policy has {self._now.name} at step {index}, this pipeline runs {called.name}",
                remedy="use the pipeline's boundary_ratio that the policy was compiled for",
            )
        actions = [self._machine.step(branch, index) for branch in branches]
        reused = [action.cached for action in actions if not isinstance(action, Compute)]
        self._computing = not reused
        if self._computing:
            self._now.trunk.set_compute()
        else:
            self._now.trunk.set_reuse(reused[0] if len(reused) == 1 else torch.cat(reused))

    def _leave(self, *branches: str) -> None:
        recorded = self._now.trunk.clear()
        if not self._computing:
            return
        if recorded is None:
            names = " and ".join(repr(branch) for branch in branches)
            raise RefusedRun(f"branch {names}: the transformer was not run in a step that computes")
        self._asked.check_tokens(recorded.shape[1])
        if recorded.is_cuda and self._now.is_compiled:
            # CUDA graphs write the next step's output into the same memory.
            recorded = recorded.clone()
        for branch, rows in zip(branches, recorded.chunk(len(branches)), strict=True):
            self._machine.record(branch, rows)

    # Pipelines that name no branch -----------------------------------------------------------------------

    @property
    def _implicit(self) -> tuple[str, ...]:
        return unnamed_branches(self.document, self.pipe, self._family)

    def _step(self, *args: Any, **kwargs: Any) -> Any:
        original = self._original("step")
        if not self._running:
            return original(*args, **kwargs)
        try:
            if self._named:
                self._check_branches()
                return original(*args, **kwargs)
            branches = self._implicit
            if not branches:
                raise CalibrationMismatch(
                    f"branch: the policy has {', '.join(self._machine.names)}, "
                    f"{type(self.pipe).__name__} does not say which one it runs",
                    remedy="use a pipeline that enters transformer.cache_context for each branch",
                )
            self._leave(*branches)
            result = original(*args, **kwargs)
            if step_index(self._scheduler) < self.document.sampler.steps:
                self._enter(*branches)
        except BaseException:
            self._end_run()
            raise
        return result

    def _check_branches(self) -> None:
        ran = self._machine.branches_at(step_index(self._scheduler))
        self.calibration.require(
            "branches",
            ", ".join(self._machine.names),
            ", ".join(ran),
            "use the guidance that the policy was compiled for, and a negative prompt where that asks for one",
        )

    # What the pipeline is about to make ------------------------------------------------------------------

    def _prepare_latents(self, *args: Any, **kwargs: Any) -> Any:
        self._fresh()
        return self._asked.prepare_latents(self._original("prepare_latents"), *args, **kwargs)

    def _encode_prompt(self, *args: Any, **kwargs: Any) -> Any:
        self._fresh()
        return self._asked.encode_prompt(self._original("encode_prompt"), *args, **kwargs)
