"""A policy applied to a pipeline instance: installs the patches of its methods, and removes them."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from budc.runtimes.admission.settings import SettingsCheck
from budc.runtimes.admission.trust import TrustedPolicy
from budc.runtimes.diffusers.conflicts import REMOVE_POLICY
from budc.runtimes.diffusers.denoiser import PolicyDenoiser
from budc.runtimes.diffusers.method_patch import MethodPatch
from budc.runtimes.diffusers.policy_run import PolicyRun
from budc.schema.errors import CacheConflict, UsageError


class AppliedPolicy:
    """A policy applied to a pipeline, as `budc.apply` returns it. `remove()` undoes it completely.

    `pipe` is the pipeline, `document` the policy, `signers` the trusted keys that signed it (empty: unsigned).
    `policies` are all that were given, for one model; the first is in effect until `use` chooses another.
    """

    def __init__(self, pipe: Any, policies: Sequence[TrustedPolicy], settings: SettingsCheck) -> None:
        self.pipe = pipe
        self.policies = tuple(policy.document for policy in policies)
        self._policies = {policy.document.budget.nfe: policy for policy in policies}
        self.document = document = self.policies[0]
        self.signers = policies[0].signers
        self._settings = settings
        self._differences_at_apply = dict(settings.differences)
        self._scheduler = pipe.scheduler
        self._denoisers = tuple(
            PolicyDenoiser(pipe, denoiser.name, document) for denoiser in document.model.denoisers
        )
        self._run = PolicyRun(pipe, document, self._denoisers, settings)
        self._patches: list[MethodPatch] = []

    def __repr__(self) -> str:
        """Say which policy is on which pipeline, how much it computes, who signed it and what is uncalibrated."""
        start = f"<{type(self).__name__} {self.document.name} on {type(self.pipe).__name__}: "
        if not self._patches:
            return f"{start}removed>"
        facts = [f"{self.document.budget.nfe} of {self.document.sampler.steps} steps computed"]
        facts.append(f"signed by {', '.join(self.signers)}" if self.signers else "unsigned")
        if self.uncalibrated:
            facts.append(f"uncalibrated ({'; '.join(self.uncalibrated)})")
        return f"{start}{', '.join(facts)}>"

    def use(self, *, nfe: int) -> None:
        """Choose the policy of so many evaluations for the runs that follow. Takes microseconds: nothing is patched.

        Raises:
            UsageError: none of the policies has so many, or the policy was removed.
            RefusedRun: a run is under way.
        """
        if nfe not in self._policies:
            known = ", ".join(map(str, sorted(self._policies)))
            raise UsageError(f"nfe: no policy of {nfe} evaluations was applied", remedy=f"one of {known}")
        if not self._patches:
            raise UsageError(f"{self.document.name} was removed", remedy="apply the policies again")
        chosen = self._policies[nfe]
        self._run.use(chosen.document)
        self.document, self.signers = chosen.document, chosen.signers

    @property
    def uncalibrated(self) -> tuple[str, ...]:
        """What differs from the calibrated settings, now and in the last run; empty means calibrated."""
        return tuple((self._differences_at_apply | self._settings.differences).values())

    def install(self) -> None:
        """Patch the pipeline, its scheduler and its transformers, or none of them.

        Raises:
            CacheConflict: another cache or another policy is on a transformer or on the scheduler.
        """
        if isinstance(vars(self._scheduler).get("set_timesteps"), MethodPatch):
            raise CacheConflict(
                "a policy is applied with this scheduler already",
                remedy=f"first {REMOVE_POLICY}, or give each pipeline a scheduler of its own",
            )
        try:
            for denoiser in self._denoisers:
                denoiser.install(
                    partial(self._run.cache_context, denoiser), partial(self._run.is_neighbour, denoiser.name)
                )
        except BaseException:
            self.remove()
            raise
        run = self._run
        self._patch(self._scheduler, run.set_timesteps, run.step)
        self._patch(self.pipe, run.prepare_latents, run.encode_prompt, run.maybe_free_model_hooks)
        run.calls.install()

    def remove(self) -> None:
        """Put the pipeline back as it was before; calling it again does nothing."""
        self._run.calls.remove()
        self._run.forwards.end_run()
        for patch in reversed(self._patches):
            patch.remove()
        self._patches.clear()
        for denoiser in self._denoisers:
            denoiser.remove()

    def _patch(self, owner: Any, *replacements: Any) -> None:
        """Replace the methods of `owner` that have the replacements' names, where it has them."""
        self._patches += [
            MethodPatch(owner, replacement.__name__, replacement)
            for replacement in replacements
            if hasattr(owner, replacement.__name__)
        ]
