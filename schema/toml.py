"""Parsing TOML that others may have written: in time proportional to its size, and with one kind of error.

`tomllib` takes time quadratic in the parts of a dotted key, and recurses into nested values.
"""

import re
import tomllib
from typing import Any

MAX_KEY_PARTS = 32
# Strings of all four kinds, and comments. What has no end reaches to the end of the text, so each byte is read once.
_OPAQUE = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*+(?:"""|\Z)'
    r"|'''(?:[^']|'(?!''))*+(?:'''|\Z)"
    r'|"(?:[^"\\\n]|\\.)*+"?'
    r"|'[^'\n]*+'?"
    r"|\#[^\n]*+",
    re.DOTALL,
)
_BETWEEN_KEYS = re.compile(r"[=\[\]{},\n]+")


def parse_toml(data: bytes) -> dict[str, Any]:
    """Return the content of a TOML file.

    Raises:
        ValueError: not UTF-8, not TOML, nested too deep, or a dotted key of more than `MAX_KEY_PARTS` parts.
    """
    text = data.decode("utf-8")
    plain = _OPAQUE.sub("", text).replace(" ", "").replace("\t", "")
    if any(key.count(".") >= MAX_KEY_PARTS for key in _BETWEEN_KEYS.split(plain)):
        raise ValueError(f"a key has more than {MAX_KEY_PARTS} parts")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("values are nested too deep") from None
