"""Counts with their nouns."""


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return so many of something: "1 policy", "2 policies"; `plural` is the noun with an s, unless it is given."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"
