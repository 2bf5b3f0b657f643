"""Captions of still pictures, for the FLUX sibling.

They use the words of the clips' captions. Instead of a motion, a caption names the place of the shape in the picture.
Splits and seeds work as in `budc.policies.nano.data.captions`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import msgspec

from budc.policies.nano.data import words
from budc.policies.nano.data.captions import (
    BACKGROUNDS,
    COLOURS,
    SHAPES,
    SIZES,
    Caption,
    Split,
    captions_in,
    vocabulary_of,
)

PLACES = ("left", "right", "top", "bottom", "centre")
MAX_TOKENS = 20
"""Length in tokens, the end token included, to which captions are padded in training and sampling."""

_OPENINGS = (
    "", "", "", "", "picture of", "drawing of", "here is", "we see", "this is", "imagine", "postcard with",
    "sketch of", "painting with", "photo of", "poster with", "look :",
)  # fmt: skip
_PREPOSITIONS = ("over", "on", "before", "against", "above")
_PLACE_WORDS = {
    "left": ("at the left", "on the left side", "leftmost", "near the left edge", "far left"),
    "right": ("at the right", "on the right side", "rightmost", "near the right edge", "far right"),
    "top": ("at the top", "on the top side", "topmost", "near the top edge", "high up"),
    "bottom": ("at the bottom", "on the bottom side", "lowest", "near the bottom edge", "low down"),
    "centre": ("at the centre", "in the middle", "central", "near the midpoint", "halfway"),
}


class Picture(msgspec.Struct, frozen=True):
    """What a caption says and a picture shows."""

    colour: str
    shape: str
    size: str
    place: str
    background: str


def phrase(picture: Picture, rng: random.Random) -> str:
    """Put a picture into words, one of many phrasings."""
    phrases = (
        rng.choice(_OPENINGS),
        "a",
        rng.choice(words.LOOKS),
        rng.choice(words.SIZE_WORDS[picture.size]),
        rng.choice(words.COLOUR_WORDS[picture.colour]),
        rng.choice(words.SHAPE_WORDS[picture.shape]),
        rng.choice(_PLACE_WORDS[picture.place]),
        rng.choice(_PREPOSITIONS),
        rng.choice(words.BACKGROUND_WORDS[picture.background]),
    )
    return " ".join(text for text in phrases if text)


def _draw(rng: random.Random) -> Caption[Picture]:
    picture = Picture(
        colour=rng.choice(COLOURS),
        shape=rng.choice(SHAPES),
        size=rng.choice(SIZES),
        place=rng.choice(PLACES),
        background=rng.choice(BACKGROUNDS),
    )
    return Caption(text=phrase(picture, rng), scene=picture)


def captions(split: Split, seed: int) -> Iterator[Caption[Picture]]:
    """Yield captions of one split without end; the same seed gives the same captions."""
    return captions_in(split, seed, _draw)


def vocabulary() -> tuple[str, ...]:
    """Return every word that a caption may have, sorted."""
    phrases = [*_OPENINGS, *_PREPOSITIONS, *words.LOOKS, "a", "an", "the", "of", "and", ".", ","]
    tables = (
        words.SIZE_WORDS,
        words.COLOUR_WORDS,
        words.SHAPE_WORDS,
        words.BACKGROUND_WORDS,
        _PLACE_WORDS,
    )
    return vocabulary_of(phrases, tables)
