"""The caption language of the nano models: a scene in words, seeded, with three disjoint splits.

A caption names five attributes of a clip (colour, shape, size, motion, background) in one of many
phrasings. Which split a caption belongs to is decided by the hash of its text, so train, calibration and
held-out captions are disjoint by construction, whatever the seeds.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from typing import Literal

import msgspec

Split = Literal["train", "calibration", "held-out"]

COLOURS = ("red", "green", "blue", "yellow", "purple", "cyan")
SHAPES = ("circle", "square", "triangle", "cross")
SIZES = ("small", "large")
MOTIONS = ("left", "right", "up", "down", "around")
BACKGROUNDS = ("striped", "checkered")

_SIZE_WORDS = {
    "small": ("small", "little", "tiny", "compact", "mini", "modest", "petite"),
    "large": ("large", "big", "huge", "giant", "broad", "massive", "great"),
}
_COLOUR_WORDS = {
    "red": ("red", "crimson", "scarlet", "ruby"),
    "green": ("green", "emerald", "grassy", "leafy"),
    "blue": ("blue", "navy", "cobalt", "sapphire"),
    "yellow": ("yellow", "golden", "lemon", "sunny"),
    "purple": ("purple", "violet", "magenta", "plum"),
    "cyan": ("cyan", "turquoise", "aqua", "teal"),
}
_SHAPE_WORDS = {
    "circle": ("circle", "disc", "ball", "dot"),
    "square": ("square", "box", "block", "tile"),
    "triangle": ("triangle", "wedge", "pyramid"),
    "cross": ("cross", "plus", "plus sign"),
}
_STRAIGHT_VERBS = (
    "moves", "glides", "drifts", "slides", "travels", "floats", "sails", "goes", "shifts", "heads",
    "passes", "cruises", "coasts", "wanders", "rolls", "skims", "flies", "proceeds", "advances",
    "strolls", "marches", "hurries", "creeps", "darts", "swims", "walks", "runs", "hovers",
    "streams", "pushes", "ambles", "voyages",
)  # fmt: skip
_AROUND_VERBS = (
    "circles", "orbits", "loops", "spins", "turns", "revolves", "swings", "wheels", "whirls",
    "rotates", "twirls", "gyrates",
)  # fmt: skip
_DIRECTIONS = {
    "left": ("to the left", "left", "leftwards", "toward the left edge", "from right to left"),
    "right": ("to the right", "right", "rightwards", "toward the right edge", "from left to right"),
    "up": ("up", "upwards", "to the top", "toward the top edge", "from bottom to top"),
    "down": ("down", "downwards", "to the bottom", "toward the bottom edge", "from top to bottom"),
    "around": ("around", "in a ring", "along a round path", "about a point", "along a curve"),
}
_BACKGROUND_WORDS = {
    "striped": (
        "a striped wall",
        "stripes",
        "striped paper",
        "a striped backdrop",
        "gray bands",
        "a lined curtain",
    ),
    "checkered": (
        "a checkered floor",
        "checks",
        "a chess board",
        "a checkered backdrop",
        "gray tiles",
        "a checkered cloth",
    ),
}
_OPENINGS = (
    "",
    "",
    "",
    "a clip of",
    "video of",
    "here",
    "we see",
    "footage of",
    "a short film with",
    "look :",
    "this is",
    "imagine",
    "picture",
    "scene with",
    "animation of",
    "in this recording",
    "watch how",
    "someone filmed",
)
_ADVERBS = (
    "",
    "",
    "",
    "smoothly",
    "steadily",
    "quietly",
    "calmly",
    "gently",
    "evenly",
    "silently",
    "softly",
    "slowly",
    "lightly",
    "easily",
    "gracefully",
    "freely",
    "neatly",
    "surely",
    "firmly",
    "patiently",
    "nicely",
    "happily",
    "lazily",
    "bravely",
    "shyly",
)
_PLACES = ("over", "on", "across", "in front of", "above", "against", "before", "past", "along", "near")
_LOOKS = (
    "",
    "",
    "",
    "plain",
    "bright",
    "solid",
    "simple",
    "clean",
    "flat",
    "vivid",
    "neat",
    "fine",
    "shiny",
    "glossy",
    "pretty",
    "lonely",
    "single",
    "lovely",
    "nice",
    "smart",
    "curious",
    "painted",
    "smooth",
    "cheerful",
    "proud",
    "friendly",
    "gentle",
    "strange",
    "perfect",
    "ordinary",
    "funny",
    "famous",
    "noble",
)

MAX_TOKENS = 32
"""Length that captions are padded to, for training and sampling alike, in tokens with the end token."""


class Scene(msgspec.Struct, frozen=True):
    """What a caption says and a clip shows."""

    colour: str
    shape: str
    size: str
    motion: str
    background: str


class Caption(msgspec.Struct, frozen=True):
    """A text and the scene that it describes."""

    text: str
    scene: Scene


def split_of(text: str) -> Split:
    """Say which split owns a caption: 80 % train, 10 % calibration, 10 % held-out, by hash of the text."""
    bucket = hashlib.sha256(text.encode()).digest()[0] * 10 // 256
    return "calibration" if bucket == 8 else "held-out" if bucket == 9 else "train"


def phrase(scene: Scene, rng: random.Random) -> str:
    """Put a scene into words, one of many phrasings."""
    verbs = _AROUND_VERBS if scene.motion == "around" else _STRAIGHT_VERBS
    words = (
        rng.choice(_OPENINGS),
        "a",
        rng.choice(_LOOKS),
        rng.choice(_SIZE_WORDS[scene.size]),
        rng.choice(_COLOUR_WORDS[scene.colour]),
        rng.choice(_SHAPE_WORDS[scene.shape]),
        rng.choice(verbs),
        rng.choice(_DIRECTIONS[scene.motion]),
        rng.choice(_ADVERBS),
        rng.choice(_PLACES),
        rng.choice(_BACKGROUND_WORDS[scene.background]),
    )
    return " ".join(word for word in words if word)


def captions(split: Split, seed: int) -> Iterator[Caption]:
    """Yield captions of one split for ever; the same seed gives the same captions."""
    rng = random.Random(f"{split}/{seed}")
    while True:
        scene = Scene(
            colour=rng.choice(COLOURS),
            shape=rng.choice(SHAPES),
            size=rng.choice(SIZES),
            motion=rng.choice(MOTIONS),
            background=rng.choice(BACKGROUNDS),
        )
        text = phrase(scene, rng)
        if split_of(text) == split:
            yield Caption(text=text, scene=scene)


def vocabulary() -> tuple[str, ...]:
    """Return every word of the language, sorted."""
    phrases = [
        *_STRAIGHT_VERBS,
        *_AROUND_VERBS,
        *_OPENINGS,
        *_ADVERBS,
        *_PLACES,
        *_LOOKS,
        "a",
        "the",
        "and",
        ".",
    ]
    for table in (_SIZE_WORDS, _COLOUR_WORDS, _SHAPE_WORDS, _DIRECTIONS, _BACKGROUND_WORDS):
        for choices in table.values():
            phrases.extend(choices)
    return tuple(sorted({word for text in phrases for word in text.split()}))


def prompt_lines(split: Split, seed: int, count: int) -> tuple[str, ...]:
    """Return the first `count` different captions of a split: the lines of the shipped prompt files."""
    found: dict[str, None] = {}
    for caption in captions(split, seed):
        found[caption.text] = None
        if len(found) == count:
            return tuple(found)
    raise AssertionError("captions never end")
