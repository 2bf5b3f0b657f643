"""The model that a policy is made for, and what every request for one has in common.

A request is resolved before a framework is imported: whatever can be refused without loading the model is refused
here, the cheapest first. What comes out is passed on and not checked again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec

from budc.compiler.models.fit import check_fit
from budc.compiler.models.supported import check_supported
from budc.policies.adapter_files import AdapterFile
from budc.policies.profile import ModelProfile, find_weights, read_prompts
from budc.policies.samples import CALIBRATION_SEED, HELD_OUT_SEED, Sample, common_negative, samples_of
from budc.schema.errors import UsageError
from budc.schema.fields import Name
from budc.schema.keys import Signer, load_public, load_signer
from budc.schema.policy import NegativePrompt, SamplerBinding

_RANGES = {"seed": (0, 2**53 - 1), "steps": (1, 1000), "revision": (1, 2**31 - 1)}


class ArtifactRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a user says of the artifact to be written and of the model that it is for."""

    weights: Path | None = None
    calibration: Path | None = None
    """Prompts to search or fit on; default the profile's."""
    negative: str | None = None
    """The negative prompt of all prompts; default the profile's."""
    seed: int = 0
    key: str | None = None
    """Path of a private key, "env:NAME", or a key URI; see `budc.schema.keys.load_signer`."""
    public: Path | None = None
    """The public half of `key`, where that is a URI."""
    out: Path | None = None
    name: str | None = None
    revision: int = 1
    download: bool = False
    rehash: bool = False
    """Read every file of the model again, whatever an earlier process remembered of it."""

    def check_numbers(self) -> None:
        """Refuse a number that is out of range. Raises UsageError."""
        for field, (low, high) in _RANGES.items():
            value = getattr(self, field, None)
            if isinstance(value, int) and not low <= value <= high:
                raise UsageError(f"{field} is {value}, expected {low} to {high}")

    def check_name(self) -> None:
        """Refuse a name that an artifact cannot have. Raises UsageError."""
        if self.name is None:
            return
        try:
            msgspec.convert(self.name, Name)
        except msgspec.ValidationError as error:
            raise UsageError(
                f"--name: {self.name!r} cannot name a policy",
                remedy="use letters, digits, dot, dash, underscore",
            ) from error

    def signer(self) -> Signer | None:
        """Return the signer, None where nothing is to be signed. Raises KeyUnusable."""
        public = load_public(self.public) if self.public else None
        return load_signer(self.key, public=public) if self.key else None

    def target(self, profile: ModelProfile, samples: SampleSets) -> Target:
        """Return the model, its weights found, or fetched where `download` says so.

        Raises:
            UnsupportedModel: the compiler does not know its pipeline.
            WeightsMissing: they are not here.
            BudcError: see `check_fit`.
        """
        check_supported(profile)
        folder = find_weights(profile, self.weights, download=self.download)
        check_fit(profile, folder)
        return Target(profile, samples, folder, self.rehash)


class SampleSets(NamedTuple):
    """What is searched on and what is reported on; they share no prompt and no noise."""

    calibration: tuple[Sample, ...]
    held_out: tuple[Sample, ...]


@dataclass(frozen=True)
class Target:
    """A model that a policy is made for: its profile, the samples, the folder of its weights."""

    profile: ModelProfile
    samples: SampleSets
    folder: Path
    rehash: bool = False
    adapters: tuple[AdapterFile, ...] = ()
    """Loaded into the denoisers before anything is measured."""

    def bound(self, sampler: SamplerBinding) -> SamplerBinding:
        """Return a sampler with the negative prompt of the samples, where its guidance uses one."""
        negative = None
        if sampler.guidance_rule == "classifier-free":
            text = common_negative(self.samples.calibration + self.samples.held_out)
            negative = NegativePrompt(rule="varied" if text is None else "fixed", text=text)
        return msgspec.structs.replace(sampler, negative_prompt=negative)


def read_samples(profile: ModelProfile, calibration: Path | None) -> SampleSets:
    """Read the prompts of both sets: the profile's, or those of the file `calibration` to search or fit on.

    Raises:
        UsageError: a file cannot be used, or a prompt is in both sets.
    """
    sizes = profile.prompts
    searched = read_prompts(calibration or sizes.calibration, None if calibration else sizes.calibration_size)
    held_out = read_prompts(sizes.held_out, sizes.held_out_size)
    if shared := sorted(set(searched) & set(held_out)):
        raise UsageError(
            f"--calibration: {len(shared)} of the prompts are held out, the first is {shared[0]!r}",
            remedy="calibrate on prompts that the report is not measured on",
        )
    negative = profile.prompts.negative
    return SampleSets(
        samples_of(searched, negative, CALIBRATION_SEED), samples_of(held_out, negative, HELD_OUT_SEED)
    )
