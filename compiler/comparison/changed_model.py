"""A loaded model as a change deploys it, and whether policies can run on it there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import msgspec

from budc.compiler.comparison.changes import Change
from budc.compiler.comparison.ipndm2m import IPNDM2MScheduler
from budc.compiler.models.adapters import with_adapters
from budc.compiler.models.model import LoadedModel, load_model
from budc.option_names import option
from budc.runtimes.sampling.loading import scheduler_class
from budc.runtimes.sampling.scheduler_choice import deployed_scheduler
from budc.schema.artifact import Artifact
from budc.schema.errors import CalibrationMismatch
from budc.schema.policy import ModelBinding, SamplerBinding


def changed(model: LoadedModel, change: Change) -> LoadedModel:
    """Return the model as a setting deploys it, on the denoisers that are loaded."""
    scheduler = changed_scheduler(model, change.scheduler) if change.scheduler else model.scheduler
    return replace(model, profile=change.profile, scheduler=scheduler)


@dataclass(frozen=True)
class Deployment:
    """How a setting deploys a model that was loaded with the adapters of `calibrated`: for any process.

    One with other adapters is loaded anew; `binding` is that of the policies' model.
    """

    change: Change
    calibrated: Change
    binding: ModelBinding
    offload: Literal["model", "group"]

    def __call__(self, model: LoadedModel) -> LoadedModel:
        """Return the model as it is deployed."""
        if self.change.adapters == self.calibrated.adapters:
            return changed(model, self.change)
        anew = load_model(self.change.profile, model.folder, model.device, self.offload)
        with_adapters(anew, self.binding, self.change.adapters)
        return anew


def changed_scheduler(model: LoadedModel, class_name: str) -> object:
    """Return a scheduler of another class with the shift of the model's own."""
    own = {**model.scheduler.config, "_class_name": type(model.scheduler).__name__}
    if class_name != IPNDM2MScheduler.__name__:
        return deployed_scheduler(scheduler_class(class_name, model.profile.name), own, {})
    euler = deployed_scheduler(
        scheduler_class("FlowMatchEulerDiscreteScheduler", model.profile.name), own, {}
    )
    return IPNDM2MScheduler.from_config(euler.config)


def sampler_under(sampler: SamplerBinding, base: LoadedModel, changed: LoadedModel) -> SamplerBinding:
    """Return a policy's sampler on a model that is deployed otherwise than the one that it was calibrated for, `base`.

    Sigmas that the policy has of its own stay. Where it has the schedule of its sampler, it gets that of `changed`.
    """
    defaults, own = base.sampler(sampler.steps).sigmas, changed.sampler(sampler.steps)
    if not all(math.isclose(a, b, abs_tol=1e-6) for a, b in zip(sampler.sigmas, defaults, strict=True)):
        own = msgspec.structs.replace(own, sigmas=sampler.sigmas, timesteps=sampler.timesteps)
    return changed.with_experts(own)


def check_samplers(policies: Sequence[Artifact], model: LoadedModel) -> None:
    """Refuse policies that were calibrated on a scheduler with other settings. Raises CalibrationMismatch."""
    for artifact in policies:
        bound = artifact.document.sampler
        if bound.config_digest != model.sampler(bound.steps).config_digest:
            raise CalibrationMismatch(
                f"{artifact.document.name} was calibrated on a {bound.scheduler} with other settings than the one in "
                f"{model.folder}",
                remedy="give the folder that it was compiled for, or --model PROFILE.toml with its scheduler",
            )


def check_experts(
    policies: Sequence[Artifact], settings: Sequence[Change], model: LoadedModel, steps: int
) -> None:
    """Refuse a change under which denoisers take over at other steps than those that masks and coefficients are for.

    Args:
        policies: what runs there; rivals run on the model's own sampler.
        settings: the changes, the calibrated setting among them.
        model: as the policies were calibrated for it.
        steps: of the full run.

    Raises:
        CalibrationMismatch: they do.
    """
    own = model.sampler(steps)
    for change in settings:
        there = changed(model, change)
        pairs = [(own, there.sampler(steps))]
        pairs += [
            (item.document.sampler, sampler_under(item.document.sampler, model, there)) for item in policies
        ]
        for calibrated, other in pairs:
            if calibrated.first_steps != other.first_steps:
                there_at, here_at = _listed(other.first_steps), _listed(calibrated.first_steps)
                raise CalibrationMismatch(
                    f"{option('under')}: {change.name}: denoisers take over at step {there_at} there, and at step "
                    f"{here_at} where the policies were calibrated, which their masks are for",
                    remedy="leave it out, or compile a policy for that setting",
                )


def _listed(steps: Sequence[int]) -> str:
    return ", ".join(map(str, steps))
