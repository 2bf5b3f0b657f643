"""Files of 1 MiB that take a reader as long as it can be made to: too large to keep, so they are made where they are read."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.hashes import SHA256

from attack_corpus.forge import P256, TRUSTED, bundle, payload_of, signed, statement

MIB = 1 << 20
PAYLOAD = (MIB - 3000) * 3 // 4
"""Bytes of payload that a file holds beside its signatures."""
VALUES = MIB // 16
"""The most that a file or a payload may have."""


OUTSIDE = ("escapes", "keys", "nesting", "strings", "too-many-keys", "too-much-nesting")
"""Structures that also fill a whole file, which is parsed but not encoded again as its payload is."""


def listed(value: bytes, room: int, most: int = VALUES - 1) -> bytes:
    """Return a list of this value that fills so many bytes, or has as many values as it may, or more."""
    return b"[" + b",".join([value] * min(most, (room - 2) // (len(value) + 1))) + b"]"


def quoted(text: bytes, room: int) -> bytes:
    return b'"' + text * ((room - 2) // len(text)) + b'"'


def keyed(room: int, most: int = VALUES - 1) -> bytes:
    """Return an object of many keys, in their order."""
    return b"{" + b",".join(b'"%06x":0' % key for key in range(min(most, room // 11))) + b"}"


def structures(room: int) -> dict[str, bytes]:
    """Return JSON of so many bytes: what is most expensive of each kind, below and above the number of values."""
    return {
        "least-numbers": listed(b"5e-324", room),
        "exponents": listed(b"1e+30", room),
        "digits": listed(b"1.2345678901234567e+100", room),
        "integers": listed(b"9007199254740991", room),
        "one-integer": b"9" * room,
        "strings": listed(b'""', room),
        "escapes": quoted(b"\\n", room),
        "escaped-points": quoted(b"\\u0001", room),
        "emoji": quoted("\U0001f600".encode(), room),
        "no-text": quoted(b"\xff", room),
        "objects": listed(b'{"a":{}}', room, VALUES // 3),
        "nesting": listed(b"[" * 30 + b"]" * 30, room, VALUES // 31),
        "keys": keyed(room),
        "a-key-again": b"{" + b",".join([b'"a":0'] * (VALUES - 1)) + b"}",
        "too-many-integers": listed(b"1", room, MIB),
        "too-many-keys": keyed(room, MIB),
        "too-much-nesting": listed(b"[" * 30 + b"]" * 30, room, MIB),
    }


def signatures(count: int, value: bytes) -> Callable[[dict[str, Any]], None]:
    """Return an edit of a bundle that gives it so many signatures, none of which names a key."""

    def edit(bundle: dict[str, Any]) -> None:
        text = base64.b64encode(value).decode()
        bundle["dsseEnvelope"]["signatures"] = [{"keyid": "", "sig": text}] * count
        bundle["verificationMaterial"]["publicKey"]["hint"] = ""

    return edit


def unread(bundle: dict[str, Any]) -> None:
    """Fill the part of a bundle that no rule looks at."""
    bundle["verificationMaterial"]["tlogEntries"] = [5e-324] * (VALUES - 500)


@cache
def worst() -> Mapping[str, bytes]:
    """Return name -> file."""
    opaque, good = b"x" * PAYLOAD, payload_of(statement())
    long = statement()
    long["predicate"]["annotations"] = {f"k{key:06x}": "x" for key in range(VALUES // 2)}
    files = statement()
    files["predicate"]["model"]["variants"] = [
        {"name": f"v{index}", "files": {f"transformer/{key:05x}.json": "a" * 64 for key in range(700)}}
        for index in range(9)
    ]
    of_ecdsa = P256.sign(b"x", ECDSA(SHA256()))
    return {
        **{f"payload-of-{name}": signed(data) for name, data in structures(PAYLOAD).items()},
        **{f"file-of-{name}": data for name, data in structures(MIB).items() if name in OUTSIDE},
        "file-of-quotes": b'"' * MIB,
        "file-of-escaped-quotes": b'\\"' * (MIB // 2),
        "file-of-brackets": b"[" * MIB,
        "unread-values": bundle(good, TRUSTED, edit=unread),
        "many-annotations": signed(payload_of(long)),
        "many-files": signed(payload_of(files)),
        "many-ed25519-signatures": bundle(opaque, TRUSTED, edit=signatures(16, TRUSTED.sign(b"x"))),
        "many-ecdsa-signatures": bundle(opaque, TRUSTED, edit=signatures(16, of_ecdsa)),
    }
