"""Prompt sets: what a policy is searched on and what it is reported on, read from files, with nothing in common."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from budc.policies.profile import ModelProfile, prompt_path
from budc.policies.prompt_files import Prompt, read_prompt_file
from budc.policies.samples import CALIBRATION_SEED, HELD_OUT_SEED, Sample
from budc.schema.errors import UsageError


class PromptSource(NamedTuple):
    """Where the prompts of a set come from, and how many of them are used; None: as the profile says."""

    path: Path | None = None
    size: int | None = None


OF_PROFILE = PromptSource()


class SampleSets(NamedTuple):
    """What is searched on and what is reported on; they share no prompt and no noise."""

    calibration: tuple[Sample, ...]
    held_out: tuple[Sample, ...]


class _PromptSet(NamedTuple):
    path: Path
    prompts: tuple[Prompt, ...]
    samples: tuple[Sample, ...]


def read_samples(
    profile: ModelProfile, calibration: PromptSource = OF_PROFILE, held_out: PromptSource = OF_PROFILE
) -> SampleSets:
    """Read the samples of both sets: the profile's, or those of files of the user's own.

    A file of his own is used whole where no size is given. Prompt i has its own seed and negative prompt, or the set's
    first seed + i and the profile's negative prompt.

    Raises:
        UsageError: a file cannot be used, or the sets share a prompt or a seed; the message names files and lines.
    """
    shipped = profile.prompts
    searched = _read(profile, calibration, shipped.calibration, shipped.calibration_size, CALIBRATION_SEED)
    reported = _read(profile, held_out, shipped.held_out, shipped.held_out_size, HELD_OUT_SEED)
    _check_apart(searched, reported)
    return SampleSets(searched.samples, reported.samples)


def held_out_samples(profile: ModelProfile, source: PromptSource) -> tuple[Sample, ...]:
    """Read the samples of a report alone. Raises UsageError."""
    shipped = profile.prompts
    return _read(profile, source, shipped.held_out, shipped.held_out_size, HELD_OUT_SEED).samples


def _read(
    profile: ModelProfile, source: PromptSource, shipped: str, size: int, first_seed: int
) -> _PromptSet:
    path = source.path or prompt_path(shipped)
    prompts = read_prompt_file(path, source.size or (None if source.path else size))
    for prompt in prompts:
        if prompt.negative is not None and profile.guidance_rule != "classifier-free":
            raise UsageError(
                f"{path}, line {prompt.line}: {profile.name} has no negative prompt "
                f"(its guidance is {profile.guidance_rule})",
                remedy="leave negative prompts out",
            )
    return _PromptSet(path, prompts, resolved(prompts, profile.prompts.negative, first_seed))


def resolved(prompts: Sequence[Prompt], negative: str, first_seed: int) -> tuple[Sample, ...]:
    """Return the samples of prompts; those that have no negative prompt or seed get this one, or the next seed."""
    return tuple(
        Sample(
            prompt.text,
            negative if prompt.negative is None else prompt.negative,
            first_seed + index if prompt.seed is None else prompt.seed,
        )
        for index, prompt in enumerate(prompts)
    )


def _check_apart(searched: _PromptSet, reported: _PromptSet) -> None:
    """Refuse sets that share a prompt or a seed: the report would be measured on what the search was fitted to."""
    prompts = {
        sample.prompt: prompt for sample, prompt in zip(searched.samples, searched.prompts, strict=True)
    }
    seeds = {sample.seed: prompt for sample, prompt in zip(searched.samples, searched.prompts, strict=True)}
    for sample, prompt in zip(reported.samples, reported.prompts, strict=True):
        for what, other in (
            (f"the prompt {sample.prompt!r}", prompts.get(sample.prompt)),
            (f"the seed {sample.seed}", seeds.get(sample.seed)),
        ):
            if other is not None:
                raise UsageError(
                    f"{reported.path}, line {prompt.line}: {what} is also that of {searched.path}, line {other.line}, "
                    "which is calibrated on",
                    remedy="hold out prompts and seeds on which nothing is chosen",
                )
