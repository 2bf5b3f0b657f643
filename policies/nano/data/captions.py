"""The caption language of the nano models: a scene in words, seeded, with three disjoint splits.

A caption names five attributes of a clip (colour, shape, size, motion, background) in one of many
phrasings; the words stand in `words.py`. Which split a caption belongs to is decided by the hash of its text,
so train, calibration and held-out captions are disjoint by construction, whatever the seeds.
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
"""Length that captions are padded to, for training and sampling alike, in tokens with the end token."""


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
    """Say which split owns a caption: 80 % train, 10 % calibration, 10 % held-out, by hash of the text."""
    bucket = hashlib.sha256(text.encode()).digest()[0] * 10 // 256
    return "calibration" if bucket == 8 else "held-out" if bucket == 9 else "train"


def phrase(scene: Scene, rng: random.Random) -> str:
    """Put a scene into words, one of many phrasings."""
    verbs = words.AROUND_VERBS if scene.motion == "around" else words.STRAIGHT_VERBS
    parts = (
        rng.choice(words.OPENINGS),
        "a",
        rng.choice(words.LOOKS),
        rng.choice(words.SIZE_WORDS[scene.size]),
        rng.choice(words.COLOUR_WORDS[scene.colour]),
        rng.choice(words.SHAPE_WORDS[scene.shape]),
        rng.choice(verbs),
        rng.choice(words.DIRECTIONS[scene.motion]),
        rng.choice(words.ADVERBS),
        rng.choice(words.PLACES),
        rng.choice(words.BACKGROUND_WORDS[scene.background]),
    )
    return " ".join(part for part in parts if part)


def drawn(split: Split, seed: int, draw: Callable[[random.Random], Caption[S]]) -> Iterator[Caption[S]]:
    """Yield the captions of one split among those that `draw` makes, for ever, repeatable by seed."""
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
    """Yield captions of one split for ever; the same seed gives the same captions."""
    return drawn(split, seed, _draw)


def train_phrase(scene: S, rng: random.Random, phrase: Callable[[S, random.Random], str]) -> str:
    """Put a scene into words of the train split."""
    while split_of(text := phrase(scene, rng)) != "train":
        pass
    return text


def vocabulary() -> tuple[str, ...]:
    """Return every word of the language, sorted."""
    phrases = [
        *words.STRAIGHT_VERBS,
        *words.AROUND_VERBS,
        *words.OPENINGS,
        *words.ADVERBS,
        *words.PLACES,
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
    """Return every word of some phrases and tables of phrases, sorted."""
    every = [*phrases, *(text for table in tables for choices in table.values() for text in choices)]
    return tuple(sorted({word for text in every for word in text.split()}))


def prompt_lines(
    split: Split,
    seed: int,
    count: int,
    language: Callable[[Split, int], Iterator[Caption[Any]]] = captions,
) -> tuple[str, ...]:
    """Return the first `count` different captions of a split: the lines of the shipped prompt files."""
    found: dict[str, None] = {}
    for caption in language(split, seed):
        found[caption.text] = None
        if len(found) == count:
            return tuple(found)
    raise AssertionError("captions never end")
