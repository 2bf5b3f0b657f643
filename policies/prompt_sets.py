"""Prompt sets: what a policy is searched on and what it is reported on, read from files, with nothing in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from budc.option_names import option
from budc.policies.conditioning_images import image_roles, sample_image
from budc.policies.profile import ModelProfile, prompt_path
from budc.policies.prompt_files import Prompt, read_prompt_file
from budc.policies.samples import CALIBRATION_SEED, HELD_OUT_SEED, Sample, SampleImage
from budc.schema.errors import UsageError


class PromptSource(NamedTuple):
    """Where the prompts of a set come from, and how many of them are used; None: as the profile says."""

    path: Path | None = None
    size: int | None = None


OF_PROFILE = PromptSource()


class SampleSets(NamedTuple):
    """What is searched on and what is reported on; they share no prompt, no noise and no image."""

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
        UsageError: a file or an image cannot be used, or the sets share a prompt, a seed or an image; the message names
            files and lines.
    """
    searched = _read(profile, "calibration", calibration, CALIBRATION_SEED)
    reported = _read(profile, "held_out", held_out, HELD_OUT_SEED)
    _check_apart(searched, reported)
    return SampleSets(searched.samples, reported.samples)


def held_out_samples(profile: ModelProfile, source: PromptSource) -> tuple[Sample, ...]:
    """Read the samples of a report alone. Raises UsageError."""
    return _read(profile, "held_out", source, HELD_OUT_SEED).samples


def _read(
    profile: ModelProfile, name: Literal["calibration", "held_out"], source: PromptSource, first_seed: int
) -> _PromptSet:
    path, size = source.path, source.size
    if path is None:
        shipped: str = getattr(profile.prompts, name)
        if not shipped:
            raise _no_prompts(profile, option(name.replace("_", "-"), "FILE"))
        path, size = prompt_path(shipped), size or getattr(profile.prompts, f"{name}_size")
    prompts = read_prompt_file(path, size)
    _check_negatives(prompts, path, profile)
    images = _images(prompts, path, profile)
    return _PromptSet(path, prompts, resolved(prompts, profile.prompts.negative, first_seed, images))


def _no_prompts(profile: ModelProfile, remedy: str) -> UsageError:
    if not image_roles(profile.pipeline_class):
        return UsageError(f"{profile.name}: its profile names no prompts", remedy=remedy)
    return UsageError(
        f"{profile.name} starts from images, and its profile names none",
        remedy=f"{remedy}, a .csv or .jsonl file with an image for each prompt",
    )


def _check_negatives(prompts: Sequence[Prompt], path: Path, profile: ModelProfile) -> None:
    for prompt in prompts:
        if prompt.negative is not None and profile.guidance_rule != "classifier-free":
            raise UsageError(
                f"{path}, line {prompt.line}: {profile.name} has no negative prompt "
                f"(its guidance is {profile.guidance_rule})",
                remedy="leave negative prompts out",
            )


def _images(prompts: Sequence[Prompt], path: Path, profile: ModelProfile) -> tuple[SampleImage | None, ...]:
    """Return the image of each prompt, where the pipeline takes one. Raises UsageError, which names the line."""
    wanted = bool(image_roles(profile.pipeline_class))
    found: dict[Path, SampleImage] = {}
    for prompt in prompts:
        where = f"{path}, line {prompt.line}"
        if wanted and prompt.image is None:
            raise UsageError(
                f"{where}: no image, but {profile.name} starts from one",
                remedy="give each prompt an image in a .csv or .jsonl file; a text file cannot hold one",
            )
        if prompt.image is not None and not wanted:
            raise UsageError(
                f"{where}: has an image, but {profile.name} starts from the prompt alone",
                remedy="leave images out, or choose a model that `budc models` lists as image-to-video",
            )
        if prompt.image is not None and prompt.image not in found:
            found[prompt.image] = sample_image(prompt.image, where)
    return tuple(None if prompt.image is None else found[prompt.image] for prompt in prompts)


def resolved(
    prompts: Sequence[Prompt], negative: str, first_seed: int, images: Sequence[SampleImage | None]
) -> tuple[Sample, ...]:
    """Return the samples of prompts; those that have no negative prompt or seed get this one, or the next seed."""
    return tuple(
        Sample(
            prompt.text,
            negative if prompt.negative is None else prompt.negative,
            first_seed + index if prompt.seed is None else prompt.seed,
            images[index],
        )
        for index, prompt in enumerate(prompts)
    )


def _check_apart(searched: _PromptSet, reported: _PromptSet) -> None:
    """Refuse sets that share something: the report would be measured on what the search was fitted to."""
    known = {
        what: prompt
        for sample, prompt in zip(searched.samples, searched.prompts, strict=True)
        for what in _contents(sample)
    }
    for sample, prompt in zip(reported.samples, reported.prompts, strict=True):
        for what in _contents(sample):
            if what in known:
                raise UsageError(
                    f"{reported.path}, line {prompt.line}: {what} is also that of {searched.path}, line "
                    f"{known[what].line}, which is calibrated on",
                    remedy="hold out what nothing is chosen on",
                )


def _contents(sample: Sample) -> Iterator[str]:
    """Yield what a sample may have in common with another one, in words."""
    yield f"the prompt {sample.prompt!r}"
    yield f"the seed {sample.seed}"
    if sample.image is not None:
        yield f"the image {sample.image.digest}"
