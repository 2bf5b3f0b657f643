"""Arguments of public functions: a wrong one is refused by its name, with what it was and what to pass."""

import operator
import os
from pathlib import Path
from typing import Any

from budc.schema.errors import KeyUnusable, UsageError
from budc.schema.signers import Signer, load_signer

MAX_SEED = 2**64 - 1
_SHOWN = 40


def described(value: object) -> str:
    """Return a value in words: None, a short number or text as it is written, else its type."""
    if value is None or (isinstance(value, bool | int | float | str) and len(repr(value)) <= _SHOWN):
        return repr(value)
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def path_argument(value: Any, name: str, remedy: str) -> Path:
    """Return an argument that is a path. Raises UsageError: it is none, such as None, bytes or an empty text."""
    if (
        not isinstance(value, str | os.PathLike)
        or not os.fspath(value)
        or isinstance(os.fspath(value), bytes)
    ):
        raise UsageError(f"{name}: {described(value)} is no path", remedy=remedy)
    if "\0" in os.fspath(value):
        raise UsageError(f"{name}: a path cannot contain NUL", remedy=remedy)
    return Path(value)


def source_argument(value: Any, name: str, remedy: str) -> bytes | Path:
    """Return an argument that is the content of a file, or its path. Raises UsageError: it is neither."""
    return value if isinstance(value, bytes) else path_argument(value, name, remedy)


def instance_argument(value: Any, kind: type, name: str, remedy: str) -> None:
    """Refuse an argument that is no instance of `kind`. Raises UsageError."""
    if not isinstance(value, kind):
        raise UsageError(f"{name}: {described(value)} is no {kind.__name__}", remedy=remedy)


def whole_number(value: Any, name: str, *, least: int, most: int, remedy: str) -> int:
    """Return an argument that is an int, or numpy's. Raises UsageError: it is none, or not from `least` to `most`."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or not least <= number <= most:
        raise UsageError(
            f"{name}: {described(value)} is no whole number from {least} to {most}", remedy=remedy
        )
    return number


def seed_argument(value: Any, *, most: int = MAX_SEED) -> int:
    """Return an argument that seeds a generator. Raises UsageError."""
    return whole_number(
        value, "seed", least=0, most=most, remedy="pass a seed such as seed=0; equal seeds repeat a run"
    )


def signer_argument(key: Any) -> Signer | None:
    """Return what an argument `key` signs with: None, a signer, or the path of a private key. Raises KeyUnusable."""
    if key is None or (hasattr(key, "sign") and hasattr(key, "public_key")):
        signer: Signer | None = key
        return signer
    try:
        return load_signer(path_argument(key, "key", "pass the path of a private key, or a signer"))
    except KeyUnusable as error:
        raise KeyUnusable(f"key: {error}", remedy=error.remedy) from error
