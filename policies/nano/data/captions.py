"""Captions of clips: a scene in words, drawn by seed, in three disjoint splits.

A caption names five attributes of a clip (colour, shape, size, motion, background) in one of many phrasings, with the
words of `budc.policies.nano.data.words`. The hash of its text decides to which split a caption belongs, so the train,
calibration and held-out splits are disjoint whatever the seeds.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, Literal, TypeVar

import msgspec

from budc.policies.nano.data import words

Split = Literal["train", "calibration", "held-out"]

COLOURS = ("red", "green", "blue", "yellow", "purple", "cyan")
SHAPES = ("circle", "square", "triangle", "cross")
SIZES = ("small", "large")
MOTIONS = ("left", "right", "up", "down", "around")
BACKGROUNDS = ("striped", "checkered")

MAX_TOKENS = 32
"""Length in tokens, the end token included, to which captions are padded in training and sampling."""


class Scene(msgspec.Struct, frozen=True):
    """What a caption says and a clip shows."""

    colour: str
    shape: str
    size: str
    motion: str
    background: str


S = TypeVar("S")


class Caption(msgspec.Struct, Generic[S], frozen=True):
    """A text and the scene that it describes."""

    text: str
    scene: S


def split_of(text: str) -> Split:
    """Return the split of a caption by the hash of its text: 80 % train, 10 % calibration, 10 % held-out."""
    bucket = hashlib.sha256(text.encode()).digest()[0] * 10 // 256
    return "calibration" if bucket == 8 else "held-out" if bucket == 9 else "train"


def phrase(scene: Scene, rng: random.Random) -> str:
    """Put a scene into words, one of many phrasings."""
    verbs = words.AROUND_VERBS if scene.motion == "around" else words.STRAIGHT_VERBS
    phrases = (
        rng.choice(words.OPENINGS),
        "a",
        rng.choice(words.LOOKS),
        rng.choice(words.SIZE_WORDS[scene.size]),
        rng.choice(words.COLOUR_WORDS[scene.colour]),
        rng.choice(words.SHAPE_WORDS[scene.shape]),
        rng.choice(verbs),
        rng.choice(words.DIRECTIONS[scene.motion]),
        rng.choice(words.ADVERBS),
        rng.choice(words.PREPOSITIONS),
        rng.choice(words.BACKGROUND_WORDS[scene.background]),
    )
    return " ".join(text for text in phrases if text)


def captions_in(split: Split, seed: int, draw: Callable[[random.Random], Caption[S]]) -> Iterator[Caption[S]]:
    """Draw captions without end and yield those of one split; the same seed gives the same captions."""
    rng = random.Random(f"{split}/{seed}")
    while True:
        caption = draw(rng)
        if split_of(caption.text) == split:
            yield caption


def _draw(rng: random.Random) -> Caption[Scene]:
    scene = Scene(
        colour=rng.choice(COLOURS),
        shape=rng.choice(SHAPES),
        size=rng.choice(SIZES),
        motion=rng.choice(MOTIONS),
        background=rng.choice(BACKGROUNDS),
    )
    return Caption(text=phrase(scene, rng), scene=scene)


def captions(split: Split, seed: int) -> Iterator[Caption[Scene]]:
    """Yield captions of one split without end; the same seed gives the same captions."""
    return captions_in(split, seed, _draw)


def train_phrase(scene: S, rng: random.Random, phrase: Callable[[S, random.Random], str]) -> str:
    """Put a scene into words by `phrase` until the text is of the train split."""
    while split_of(text := phrase(scene, rng)) != "train":
        pass
    return text


def vocabulary() -> tuple[str, ...]:
    """Return every word that a caption may have, sorted."""
    phrases = [
        *words.STRAIGHT_VERBS,
        *words.AROUND_VERBS,
        *words.OPENINGS,
        *words.ADVERBS,
        *words.PREPOSITIONS,
        *words.LOOKS,
        "a",
        "the",
        "and",
        ".",
    ]
    tables = (
        words.SIZE_WORDS,
        words.COLOUR_WORDS,
        words.SHAPE_WORDS,
        words.DIRECTIONS,
        words.BACKGROUND_WORDS,
    )
    return vocabulary_of(phrases, tables)


def vocabulary_of(phrases: Iterable[str], tables: Iterable[Mapping[str, Iterable[str]]]) -> tuple[str, ...]:
    """Return every word of these phrases and tables of phrases, sorted."""
    texts = [*phrases, *(text for table in tables for choices in table.values() for text in choices)]
    return tuple(sorted({word for text in texts for word in text.split()}))


def prompt_lines(
    split: Split,
    seed: int,
    count: int,
    captions_of: Callable[[Split, int], Iterator[Caption[Any]]] = captions,
) -> tuple[str, ...]:
    """Return the first `count` different captions of a split, as in the shipped prompt files."""
    lines: dict[str, None] = {}
    for caption in captions_of(split, seed):
        lines[caption.text] = None
        if len(lines) == count:
            return tuple(lines)
    raise AssertionError("captions never end")
