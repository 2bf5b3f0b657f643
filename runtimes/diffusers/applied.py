"""A policy applied to a pipeline instance: installs the patches of its methods, and removes them."""

from collections.abc import Mapping, Sequence
from functools import partial
from os import PathLike
from typing import Any

from budc.runtimes.admission.held_policies import check_replacement, held_policies, of_evaluations
from budc.runtimes.admission.settings import SettingsCheck
from budc.runtimes.admission.trust import Source, TrustedPolicy
from budc.runtimes.diffusers.call_arguments import call_arguments
from budc.runtimes.diffusers.checks import check_additions_of, check_schedules
from budc.runtimes.diffusers.conflicts import REMOVE_POLICY
from budc.runtimes.diffusers.denoiser import PolicyDenoiser
from budc.runtimes.diffusers.method_patch import MethodPatch
from budc.runtimes.diffusers.policy_run import PolicyRun
from budc.schema.errors import CacheConflict, UsageError
from budc.schema.policy import PolicyDocument
from budc.schema.trust import Trust


class AppliedPolicy:
    """A policy applied to a pipeline, as `budc.apply` returns it. `remove()` undoes it completely.

    `pipe` is the pipeline, `document` the policy, `signers` the trusted keys that signed it (empty: unsigned).
    Of several policies the first is in effect until `use` chooses another.
    """

    def __init__(self, pipe: Any, held: Mapping[int, TrustedPolicy], settings: SettingsCheck) -> None:
        self.pipe = pipe
        self._held = held
        first = next(iter(held.values()))
        self.document = document = first.document
        self.signers = first.signers
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

    @property
    def policies(self) -> tuple[PolicyDocument, ...]:
        """All policies that are held, for one model."""
        return tuple(policy.document for policy in self._held.values())

    @property
    def call_arguments(self) -> dict[str, Any]:
        """What to call the pipeline with: steps, guidance, size, text length and negative prompt of the policy."""
        return call_arguments(self.pipe, self.document)

    def use(self, *, nfe: int) -> None:
        """Choose the policy of so many evaluations for the runs that follow. Takes microseconds: nothing is patched.

        Raises:
            UsageError: none of the policies has so many, or the policy was removed.
            RefusedRun: a run is under way.
        """
        chosen = of_evaluations(self._held, nfe)
        self._check_installed()
        self._go_over(chosen)

    def replace(
        self,
        artifact: Source | Sequence[Source],
        *,
        trust: Trust | str | PathLike[str] | None = None,
        allow_unsigned: bool = False,
    ) -> None:
        """Hold other policies for the same model in place of these; the first is in effect for the runs that follow.

        All are verified before anything changes. The weights are not read again: they are verified for this model.
        The arguments are those of `apply`.

        Raises:
            UsageError: a policy is for another model, or two have the same number of evaluations, or the policy was
                removed.
            TrustError, ArtifactError, CalibrationMismatch: as for `apply`.
            RefusedRun: a run is under way.
        """
        held = held_policies(artifact, trust, allow_unsigned)
        self._check_installed()
        documents = [policy.document for policy in held.values()]
        check_replacement(documents[0], self.document)
        settings = SettingsCheck(self._settings.allow)
        check_additions_of(documents, self.pipe)
        check_schedules(documents, self.pipe, settings)
        self._go_over(next(iter(held.values())))
        self._held = held
        self._differences_at_apply |= settings.differences

    def _check_installed(self) -> None:
        if not self._patches:
            raise UsageError(f"{self.document.name} was removed", remedy="apply the policies again")

    def _go_over(self, policy: TrustedPolicy) -> None:
        self._run.use(policy.document)
        self.document, self.signers = policy.document, policy.signers

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
