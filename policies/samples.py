"""Samples: what each generation of a prompt set starts from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

CALIBRATION_SEED = 10_000
HELD_OUT_SEED = 20_000
"""First noise seed of either set; prompt i starts from seed + i, so the two sets share no noise."""


class SampleImage(NamedTuple):
    """An image file, by its path and the digest of its content."""

    path: str
    digest: str


class Sample(NamedTuple):
    """A prompt, the negative prompt that it is guided away from, the seed of its noise, and the image that it starts
    from, if its pipeline takes one.
    """

    prompt: str
    negative: str
    seed: int
    image: SampleImage | None = None


def samples_of(prompts: Iterable[str], negative: str, first_seed: int) -> tuple[Sample, ...]:
    """Return the samples of prompts with one negative prompt and seeds in a row."""
    return tuple(Sample(prompt, negative, first_seed + index) for index, prompt in enumerate(prompts))


def common_negative(samples: Iterable[Sample]) -> str | None:
    """Return the negative prompt that all samples have; None where they differ."""
    negatives = {sample.negative for sample in samples}
    return negatives.pop() if len(negatives) == 1 else None
