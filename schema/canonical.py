"""Canonical JSON (RFC 8785) and a strict JSON parser.

    >>> encode({"b": 1.0, "a": [True, None]})
    b'{"a":[true,null],"b":1}'
    >>> decode(b'{"a":[true,null],"b":1}')
    {'a': [True, None], 'b': 1}

Signatures are over bytes, and two readers must never take different values from the same bytes. So `decode`
encodes what it parsed and compares: -0.0, digits beyond a double, needless escapes and whitespace all fail that
one comparison.
"""

import hashlib
import json
import math
import re
import sys
from collections.abc import Iterable
from typing import NoReturn

import rfc8785

from budc.schema.errors import ArtifactSyntax, ArtifactTooLarge

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
BYTES_PER_VALUE = 16
"""A text has at most one value for so many bytes of its size cap, which bounds the time that it takes."""
_SAFE_INTEGER = 2**53 - 1
_LARGEST = sys.float_info.max
# A string without an end matches too, up to the end of the text: each byte is looked at once.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_NO_STRUCTURE = bytes(set(_NO_BRACKETS) - set(b","))


def encode(value: object) -> bytes:
    """Return the RFC 8785 bytes of `value`, which holds dict, list, tuple, str, int, float, bool and None only.

    Raises:
        ArtifactSyntax: a number that is not finite or beyond 2**53, text that is not Unicode, another type.
    """
    try:
        return rfc8785.dumps(value)  # type: ignore[arg-type]
    except (ValueError, RecursionError) as error:
        path = _bad_number_path(value) if isinstance(error, rfc8785.CanonicalizationError) else None
        where = "" if path is None else f" - at `${path}`"
        raise ArtifactSyntax(f"not representable as canonical JSON: {error}{where}") from error


def digest(value: object) -> str:
    """Return "sha256:<hex>" of the canonical bytes of `value`. Raises ArtifactSyntax."""
    return "sha256:" + hashlib.sha256(encode(value)).hexdigest()


def parse(data: bytes, *, limit: int = MAX_BYTES, what: str = "artifact") -> object:
    """Return the value of strict JSON: UTF-8, no duplicate keys, finite numbers, at most `MAX_DEPTH` deep, with a
    bounded number of values.

    Half of a surrogate pair is refused. Integers beyond 2**53 come back as the double that JSON says they are.

    Args:
        data: the text; looked at only if it is at most `limit` bytes.
        limit: size cap in bytes.
        what: how error messages call the text.

    Raises:
        ArtifactTooLarge: over `limit`, or too many values.
        ArtifactSyntax: anything else.
    """
    if len(data) > limit:
        raise ArtifactTooLarge(f"{what} is {len(data)} bytes, the limit is {limit}")
    _refuse_structure(data, limit // BYTES_PER_VALUE, what)
    try:
        value: object = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_float,
            parse_constant=_constant,
        )
        if b"\\u" in data:
            # Half of a surrogate pair is no text, and only an escape can smuggle one in.
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        return value
    except (ValueError, RecursionError) as error:
        raise ArtifactSyntax(f"{what} is not JSON that the format allows: {error}") from error


def decode(data: bytes, *, what: str = "artifact") -> object:
    """Return the value of canonical JSON, and refuse every other spelling of it.

    Raises:
        ArtifactTooLarge: see `parse`.
        ArtifactSyntax: not JSON, or not the canonical bytes of what it says.
    """
    value = parse(data, what=what)
    canonical = encode(value)
    if canonical != data:
        pairs = enumerate(zip(data, canonical, strict=False))
        at = next((i for i, (left, right) in pairs if left != right), min(len(data), len(canonical)))
        raise ArtifactSyntax(f"{what} is not canonical JSON (RFC 8785): it differs from byte {at} on")
    return value


def _bad_number_path(value: object) -> str | None:
    """Return the path of the first number without a canonical form below `value`, such as ".a[2]"."""
    if isinstance(value, float | int):
        limit = _SAFE_INTEGER if isinstance(value, int) else _LARGEST
        return None if abs(value) <= limit else ""
    items: Iterable[tuple[object, object]] = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    # The path is put together on the way back: made for every item, it would take quadratic time.
    for key, item in items:
        path = _bad_number_path(item)
        if path is not None:
            return (f".{key}" if isinstance(value, dict) else f"[{key}]") + path
    return None


def _refuse_structure(data: bytes, values: int, what: str) -> None:
    """Count commas and brackets outside strings before the parser, which recurses, sees them."""
    structure = _STRING.sub(b"", data).translate(None, _NO_STRUCTURE)
    depth = 0
    for bracket in structure.translate(None, b","):
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_DEPTH:
            raise ArtifactSyntax(f"{what} is nested more than {MAX_DEPTH} deep")
    # Every value but the first follows a comma or an opening bracket.
    count = sum(structure.count(byte) for byte in (b",", b"[", b"{"))
    if count > values:
        raise ArtifactTooLarge(f"{what} has {count} values, the limit is {values}")


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result: dict[str, object] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"duplicate key {key!r}")
        result[key] = value
    return result


def _integer(digits: str) -> int | float:
    if len(digits) <= 17 and abs(int(digits)) <= _SAFE_INTEGER:
        return int(digits)
    return _float(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"number {digits[:40]} is out of range")
    return value


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
