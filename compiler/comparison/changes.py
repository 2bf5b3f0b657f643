"""Changes of a deployment, under which a policy is tried as it is: `--under scheduler=euler`, `--under guidance=4`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from budc.option_names import option
from budc.policies.adapter_files import AdapterFile, adapter_files, with_further
from budc.policies.deployment import Deployment
from budc.policies.profile import ModelProfile
from budc.policies.samples import Sample
from budc.schema.errors import UsageError
from budc.schema.hashing import sha256_files

SCHEDULERS = {
    "euler": "FlowMatchEulerDiscreteScheduler",
    "unipc": "UniPCMultistepScheduler",
    "dpm": "DPMSolverMultistepScheduler",
    "ipndm2m": "IPNDM2MScheduler",
}
"""Short names of solvers -> scheduler classes; the last is `budc.compiler.comparison.ipndm2m`."""
KINDS = ("scheduler", "size", "frames", "guidance", "negative", "lora")


@dataclass(frozen=True)
class Change:
    """One setting of an evaluation: its name in the results, the model's profile under it, and adapters."""

    name: str
    profile: ModelProfile
    scheduler: str | None = None
    """Class of the scheduler; None for the profile's."""
    adapters: tuple[AdapterFile, ...] = ()
    """All that are loaded: the policy's own, and what the change adds."""
    negative: str | None = None
    """The negative prompt of all samples; None for their own."""

    @property
    def key(self) -> str:
        """What the journal calls the setting: its name, and what its adapters' files contain."""
        digests = sha256_files(file.path for file in self.adapters)
        return " ".join([self.name, *(digests[file.path] for file in self.adapters)])

    def samples(self, samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
        """Return samples with this setting's negative prompt."""
        if self.negative is None:
            return samples
        return tuple(sample._replace(negative=self.negative) for sample in samples)


def parse_changes(texts: Sequence[str], calibrated: Change) -> tuple[Change, ...]:
    """Return the changes of the calibrated setting that a user asks for, each `KIND=VALUE`.

    Raises:
        UsageError: one is not understood, the model has no such setting, or a policy cannot run under it.
    """
    changes = tuple(_parsed(text, calibrated) for text in texts)
    names = [change.name for change in changes]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{option('under')}: {name} is there twice", remedy="give it once")
    return changes


def _parsed(text: str, calibrated: Change) -> Change:
    kind, equals, value = text.partition("=")
    if kind == "steps":
        raise UsageError(
            f"{option('under')}: {text}: a policy says of each of its steps whether it is computed, so it has no other "
            "number of steps",
            remedy="compile one for that number of steps",
        )
    if kind not in KINDS or not equals or (not value and kind != "negative"):
        raise UsageError(
            f"{option('under')}: {text!r} is no change of a setting",
            remedy=f"write KIND=VALUE, with one of {', '.join(KINDS)}",
        )
    try:
        return replace(_PARSERS[kind](calibrated, value), name=text)
    except UsageError as error:
        raise UsageError(f"{option('under')}: {text}: {error}", remedy=error.remedy) from error


def _scheduler(calibrated: Change, value: str) -> Change:
    if value not in SCHEDULERS:
        raise UsageError(f"{value!r} is no solver", remedy=f"use one of {', '.join(SCHEDULERS)}")
    return replace(calibrated, scheduler=SCHEDULERS[value])


def _size(calibrated: Change, value: str) -> Change:
    height, times, width = value.partition("x")
    if not (times and height.isdecimal() and width.isdecimal()):
        raise UsageError(f"{value!r} is no size", remedy="write HxW in pixels, such as size=480x832")
    return _deployed(calibrated, height=int(height), width=int(width))


def _frames(calibrated: Change, value: str) -> Change:
    if not value.isdecimal():
        raise UsageError(f"{value!r} is no number of frames", remedy="write a whole number")
    return _deployed(calibrated, frames=int(value))


def _guidance(calibrated: Change, value: str) -> Change:
    try:
        scale = float(value)
    except ValueError:
        raise UsageError(f"{value!r} is no scale", remedy="write a number, such as guidance=4.5") from None
    return _deployed(calibrated, guidance=scale)


def _negative(calibrated: Change, value: str) -> Change:
    return replace(_deployed(calibrated, negative=value), negative=value)


def _lora(calibrated: Change, value: str) -> Change:
    (further,) = adapter_files([value], list(calibrated.profile.denoisers))
    return replace(calibrated, adapters=with_further(calibrated.adapters, further))


def _deployed(calibrated: Change, **settings: Any) -> Change:
    return replace(calibrated, profile=Deployment(**settings).deployed(calibrated.profile))


_PARSERS: dict[str, Callable[[Change, str], Change]] = {
    "scheduler": _scheduler,
    "size": _size,
    "frames": _frames,
    "guidance": _guidance,
    "negative": _negative,
    "lora": _lora,
}
