"""Text of files that nobody has verified, fit to be shown: on one line, and nothing in it hidden."""

import unicodedata

MESSAGE_LIMIT = 600
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
# Letters and marks that are shown as nothing: joiners, fillers and variation selectors.
_INVISIBLE = frozenset(
    {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0}
    | {*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)}
)


def printable(text: str, limit: int = MESSAGE_LIMIT) -> str:
    """Return `text` on one line, invisible and direction-changing characters as "?", at most `limit` long."""
    flat = "".join("?" if _is_hidden(char) else char for char in text[: limit + 1])
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def _is_hidden(char: str) -> bool:
    return unicodedata.category(char) in _HIDDEN or ord(char) in _INVISIBLE
