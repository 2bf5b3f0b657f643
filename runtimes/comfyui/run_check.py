"""The check of a run: everything that a policy is bound to, compared before anything is computed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from budc.runtimes.admission.settings import SettingsCheck
from budc.runtimes.comfyui import checks
from budc.runtimes.comfyui.adapters import check_adapters
from budc.runtimes.comfyui.families import EngineFamily
from budc.runtimes.comfyui.other_nodes import check_other_nodes
from budc.runtimes.comfyui.sampling_run import SamplingRun
from budc.schema.policy import PolicyDocument


@dataclass(frozen=True)
class RunCheck:
    """Checks runs of a MODEL under a policy.

    `later` are the MODELs of the denoisers after the first; `guide` and `key` are the policy's own function of guidance
    and the key of its wrappers, which are not other nodes'.
    """

    family: EngineFamily
    later: Sequence[Any]
    settings: SettingsCheck
    guide: Callable[..., Any] | None
    key: str

    def __call__(self, document: PolicyDocument, run: SamplingRun) -> None:
        """Check one run against the policy as it is at the run's size.

        Raises:
            CalibrationMismatch: it is not the calibrated run.
        """
        settings = self.settings
        settings.begin_run()
        checks.check_schedule(document, run)
        check_other_nodes(run.patcher, run.options, settings, own=self.guide, key=self.key)
        checks.check_guidance(document, run, self.family, settings)
        checks.check_conditioning(document, run, settings)
        checks.check_sampler(document, run, settings)
        checks.check_size(document, run, settings)
        for denoiser, patcher in zip(document.model.denoisers, (run.patcher, *self.later), strict=True):
            checks.check_parametrisation(patcher, settings)
            checks.check_precision(document, patcher, settings)
            check_adapters(document, denoiser.name, patcher, settings)
        for patcher in self.later:
            # The engine runs the first MODEL's nodes alone: here a difference would be lost, not run.
            check_other_nodes(patcher, patcher.model_options, SettingsCheck())
