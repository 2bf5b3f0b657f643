"""Compatibility: whether a policy found on one model can become one of another."""

from __future__ import annotations

from budc.policies.profile import ModelProfile
from budc.schema.errors import CalibrationMismatch, UnsupportedModel
from budc.schema.policy import PolicyDocument, SamplerBinding


def check_family(document: PolicyDocument, profile: ModelProfile, differing: bool = False) -> None:
    """Refuse what cannot be carried over, before anything is loaded. Raises UnsupportedModel."""
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


def check_sampling(
    document: PolicyDocument, profile: ModelProfile, own: SamplerBinding, differing: bool = False
) -> None:
    """Refuse a target that is sampled in another way. Raises CalibrationMismatch, with the field and both values."""
    theirs = document.sampler
    settings = {key for key in (*theirs.config, *own.config) if theirs.config.get(key) != own.config.get(key)}
    pairs: list[tuple[str, object, object]] = [
        ("steps", theirs.steps, profile.steps),
        ("guidance rule", theirs.guidance_rule, own.guidance_rule),
        ("guidance", float(theirs.guidance), float(own.guidance)),
        *(
            (f"guidance of {mine.denoiser}", float(other.guidance), float(mine.guidance))
            for other, mine in zip(theirs.experts, own.experts, strict=False)
        ),
        ("scheduler", theirs.scheduler, own.scheduler),
        *((f"scheduler.{key}", theirs.config.get(key), own.config.get(key)) for key in sorted(settings)),
    ]
    for field, found, wanted in pairs:
        if found != wanted and not differing:
            raise CalibrationMismatch(
                f"{field}: the policy was found with {found}, {profile.name} is deployed with {wanted}",
                remedy="compile a policy for that model, or pass --allow-differences to try it",
            )


def check_first_steps(document: PolicyDocument, profile: ModelProfile, sampler: SamplerBinding) -> None:
    """Refuse a target whose experts take over at other steps: mask and coefficients fit theirs alone.

    Raises CalibrationMismatch.
    """
    theirs, own = document.sampler.first_steps, sampler.first_steps
    if theirs != own:
        raise CalibrationMismatch(
            f"experts: they take over at step {_listed(theirs)} under the policy, in {profile.name} at {_listed(own)}",
            remedy="compile a policy for that model",
        )


def _listed(steps: tuple[int, ...]) -> str:
    return ", ".join(map(str, steps)) or "none"
