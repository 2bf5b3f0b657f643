"""The words of the captions: some name an attribute, others only vary the phrasing.

The captions of clips and of pictures share these tables, so that a colour has the same names in both. The shipped
prompts are drawn by seed, so the order within a table must not change.
"""

from __future__ import annotations

SIZE_WORDS = {
    "small": ("small", "little", "tiny", "compact", "mini", "modest", "petite"),
    "large": ("large", "big", "huge", "giant", "broad", "massive", "great"),
}
COLOUR_WORDS = {
    "red": ("red", "crimson", "scarlet", "ruby"),
    "green": ("green", "emerald", "grassy", "leafy"),
    "blue": ("blue", "navy", "cobalt", "sapphire"),
    "yellow": ("yellow", "golden", "lemon", "sunny"),
    "purple": ("purple", "violet", "magenta", "plum"),
    "cyan": ("cyan", "turquoise", "aqua", "teal"),
}
SHAPE_WORDS = {
    "circle": ("circle", "disc", "ball", "dot"),
    "square": ("square", "box", "block", "tile"),
    "triangle": ("triangle", "wedge", "pyramid"),
    "cross": ("cross", "plus", "plus sign"),
}
STRAIGHT_VERBS = (
    "moves", "glides", "drifts", "slides", "travels", "floats", "sails", "goes", "shifts", "heads",
    "passes", "cruises", "coasts", "wanders", "rolls", "skims", "flies", "proceeds", "advances",
    "strolls", "marches", "hurries", "creeps", "darts", "swims", "walks", "runs", "hovers",
    "streams", "pushes", "ambles", "voyages",
)  # fmt: skip
AROUND_VERBS = (
    "circles", "orbits", "loops", "spins", "turns", "revolves", "swings", "wheels", "whirls",
    "rotates", "twirls", "gyrates",
)  # fmt: skip
DIRECTIONS = {
    "left": ("to the left", "left", "leftwards", "toward the left edge", "from right to left"),
    "right": ("to the right", "right", "rightwards", "toward the right edge", "from left to right"),
    "up": ("up", "upwards", "to the top", "toward the top edge", "from bottom to top"),
    "down": ("down", "downwards", "to the bottom", "toward the bottom edge", "from top to bottom"),
    "around": ("around", "in a ring", "along a round path", "about a point", "along a curve"),
}
BACKGROUND_WORDS = {
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
OPENINGS = (
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
ADVERBS = (
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
PREPOSITIONS = ("over", "on", "across", "in front of", "above", "against", "before", "past", "along", "near")
LOOKS = (
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
