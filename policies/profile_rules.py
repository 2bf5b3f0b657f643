"""What a profile of the user's own must say, so that nothing in it contradicts the rest. No weights are looked at."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import msgspec

from budc.policies.profile import ModelProfile, profile_names
from budc.policies.quantization import KINDS
from budc.schema.errors import UsageError
from budc.schema.fields import Name

BRANCHES: Mapping[str, tuple[str, ...]] = {
    "classifier-free": ("cond", "uncond"),
    "distilled": ("cond",),
    "none": ("cond",),
}
"""Guidance rule → the guidance branches of a step."""

_RANGES = {"steps": (1, 1000), "height": (1, 65536), "width": (1, 65536), "frames": (1, 65536)}


def check_profile(profile: ModelProfile, where: str) -> None:
    """Refuse a profile that contradicts itself; `where` is how messages call its file.

    Raises:
        UsageError: a field has a value that it cannot have, or two fields do not agree; the message names them.
    """
    for what, remedy in _faults(profile):
        raise UsageError(f"{where}: {what}", remedy=remedy)


def _faults(profile: ModelProfile) -> Iterator[tuple[str, str]]:
    """Yield what is wrong and what to do, the first fault first."""
    names = {"name": profile.name, "family": profile.family, "pipeline_class": profile.pipeline_class}
    names |= {"scheduler": profile.scheduler}
    names |= {f"denoisers.{name}": name for name in profile.denoisers}
    names |= {f"denoisers.{name} class": kind for name, kind in profile.denoisers.items()}
    for field, value in names.items():
        try:
            msgspec.convert(value, Name)
        except msgspec.ValidationError:
            yield f"{field} {value!r} is no name", "use letters, digits, dot, dash, underscore"
    if profile.name in profile_names():
        yield (
            f"name {profile.name!r} is that of a model that the package ships",
            "give your own model another name",
        )
    if profile.embedded:
        yield "embedded is for models that the package ships", "say weights = DIR"
    for field, (low, high) in _RANGES.items():
        value = getattr(profile, field)
        if not low <= value <= high:
            yield f"{field} is {value}, expected {low} to {high}", f"give another {field}"
    for name, number in _numbers(msgspec.to_builtins(profile)):
        if not math.isfinite(number):
            yield f"{name} is {number}", "give a finite number"
    if profile.experts and not 0 < profile.experts.boundary < 1:
        yield (
            f"experts.boundary is {profile.experts.boundary:g}, expected between 0 and 1",
            "give the share of the training timesteps below which the second denoiser runs",
        )
    if profile.text_tokens is not None and profile.text_tokens < 1:
        yield (
            f"text_tokens is {profile.text_tokens}, expected 1 or more",
            "leave it out where text is not padded",
        )
    if len(profile.denoisers) != (2 if profile.experts else 1):
        yield (
            f"denoisers names {len(profile.denoisers)}, and [experts] is {'there' if profile.experts else 'not there'}",
            "name two denoisers and say in [experts] when the second takes over, or name one",
        )
    if profile.quantization and profile.quantization not in KINDS:
        yield (
            f"quantization {profile.quantization[:100]!r} is no known kind",
            f"use one of {', '.join(KINDS)}, or leave it out",
        )
    yield from _guidance_faults(profile)


def _numbers(fields: Mapping[str, object], above: str = "") -> Iterator[tuple[str, float]]:
    """Yield the floating-point numbers of a profile by their names."""
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{above}{name}.")
        elif isinstance(value, float):
            yield above + name, value


def _guidance_faults(profile: ModelProfile) -> Iterator[tuple[str, str]]:
    rule, expected = profile.guidance_rule, BRANCHES[profile.guidance_rule]
    if profile.branches != expected:
        yield (
            f"branches is {list(profile.branches)}, but guidance_rule {rule!r} has {list(expected)}",
            f"branches = {list(expected)}, or another guidance_rule".replace("'", '"'),
        )
    if rule == "none" and profile.guidance not in (0, 1):
        yield (
            f'guidance is {profile.guidance:g}, but guidance_rule "none" uses none',
            "guidance = 0, or another guidance_rule",
        )
    if rule == "classifier-free" and profile.guidance <= 1:
        yield (
            f"guidance is {profile.guidance:g}, at which a pipeline runs no second branch",
            'give a scale above 1, or guidance_rule = "none" with one branch',
        )
