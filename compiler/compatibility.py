"""Compatibility: whether a policy found on one model can become one of another."""

from __future__ import annotations

from collections.abc import Sequence

from budc.policies.profile import ModelProfile
from budc.schema.errors import CalibrationMismatch, UnsupportedModel
from budc.schema.policy import PolicyDocument, SamplerBinding


def check_family(document: PolicyDocument, profile: ModelProfile, differing: bool = False) -> None:
    """Refuse a policy that cannot be carried over, before anything is loaded. Raises UnsupportedModel."""
    branches = {name for branch in document.policy.branches for name in branch.names}
    if branches != set(profile.branches):
        raise UnsupportedModel(
            f"{document.name} has the guidance branches {', '.join(sorted(branches))}, "
            f"{profile.name} has {', '.join(sorted(profile.branches))}",
            remedy="compile a policy for that model",
        )
    if len(document.model.denoisers) != len(profile.denoisers):
        raise UnsupportedModel(
            f"{document.name} is for {len(document.model.denoisers)} denoisers, {profile.name} has "
            f"{len(profile.denoisers)}",
            remedy="compile a policy for that model",
        )
    if document.model.family != profile.family and not differing:
        raise UnsupportedModel(
            f"{document.name} is of the family {document.model.family}, {profile.name} of {profile.family}",
            remedy="compile a policy for that model, or pass --allow-differences to try it",
        )


def check_sampling(document: PolicyDocument, profile: ModelProfile, differing: bool = False) -> None:
    """Refuse a target whose profile deploys other steps, guidance or scheduler, before anything is loaded.

    Raises CalibrationMismatch, with the field and both values.
    """
    sampler = document.sampler
    own_guidances = (profile.experts.guidance,) if profile.experts else ()
    pairs: list[tuple[str, object, object]] = [
        ("steps", sampler.steps, profile.steps),
        ("guidance rule", sampler.guidance_rule, profile.guidance_rule),
        ("guidance", float(sampler.guidance), float(profile.guidance)),
        *(
            (f"guidance of {expert.denoiser}", float(expert.guidance), float(own))
            for expert, own in zip(sampler.experts, own_guidances, strict=False)
        ),
        ("scheduler", sampler.scheduler, profile.scheduler),
    ]
    _compare(pairs, profile, differing)


def check_scheduler(
    document: PolicyDocument, profile: ModelProfile, own: SamplerBinding, differing: bool = False
) -> None:
    """Refuse a target whose scheduler, once loaded, has other settings.

    Raises CalibrationMismatch, with the field and both values.
    """
    theirs = document.sampler.config
    settings = sorted(key for key in {*theirs, *own.config} if theirs.get(key) != own.config.get(key))
    pairs = [(f"scheduler.{key}", theirs.get(key), own.config.get(key)) for key in settings]
    _compare(pairs, profile, differing)


def check_first_steps(document: PolicyDocument, profile: ModelProfile, sampler: SamplerBinding) -> None:
    """Refuse a target whose experts take over at other steps: mask and coefficients fit the policy's steps alone.

    Raises CalibrationMismatch.
    """
    theirs, own = document.sampler.first_steps, sampler.first_steps
    if theirs != own:
        raise CalibrationMismatch(
            f"experts: they take over at step {_listed(theirs)} under the policy, in {profile.name} at {_listed(own)}",
            remedy="compile a policy for that model",
        )


def _compare(pairs: Sequence[tuple[str, object, object]], profile: ModelProfile, differing: bool) -> None:
    for field, calibrated, deployed in pairs:
        if calibrated != deployed and not differing:
            raise CalibrationMismatch(
                f"{field}: the policy was found with {calibrated}, {profile.name} is deployed with {deployed}",
                remedy="compile a policy for that model, or pass --allow-differences to try it",
            )


def _listed(steps: tuple[int, ...]) -> str:
    return ", ".join(map(str, steps)) or "none"
