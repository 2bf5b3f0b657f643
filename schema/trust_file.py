"""The trust file: its form, and how it is read.

It is TOML, written by hand or by `budc trust`:

    threshold = 1                            # distinct keys that must have signed
    denied = ["sha256:…"]                    # ids of policies and evaluations that are refused, whoever signed
    require-evaluation = "psnr>=30,n>=32"    # policies without such an evaluation are refused

    [minimum-revision]                       # per policy name, quoted; a lower revision is a rollback
    "wan2.1-nfe10" = 3

    [[keys]]
    name = "release"
    file = "release.pub"                     # relative to the trust file; or `pem`, the key itself
    families = ["wan2.1"]                    # model families that this key may sign for; default all, [] none
    roles = ["publisher"]                    # what it may sign: policies (default), or "evaluator": evaluations

`keys = ["release.pub"]`, a list of files, is short for keys without names and limits. What the file says is
`budc.schema.trust`'s to apply; `budc.schema.trust_edits` changes it.
"""

import os
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from budc.schema.errors import BudcError, KeyUnusable, TrustError
from budc.schema.fields import Digest, Name
from budc.schema.files import read_limited
from budc.schema.keys import PublicKey, load_public
from budc.schema.roles import PUBLISHER, Role
from budc.schema.toml import parse_toml

_TRUST_BYTES = 1 << 20
FORM = "see `budc trust --help` for the form of a trust file"
"""Remedy for a file that is not of this form."""

Count = Annotated[int, Meta(ge=1)]


class KeyEntry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A trusted key in a trust file: by path or as PEM text."""

    name: Name | None = None
    file: str | None = None
    pem: str | None = None
    families: list[Name] | None = None
    roles: Annotated[list[Role], Meta(min_length=1, max_length=2)] | None = None
    """What it may sign; a publisher's key if unset."""

    def has(self, role: Role) -> bool:
        """Whether the key is trusted in this role."""
        return role in (self.roles or (PUBLISHER,))


class TrustFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """The content of a trust file."""

    keys: list[KeyEntry | str] = []
    threshold: Count = 1
    denied: list[Digest] = []
    require_evaluation: str | None = None
    minimum_revision: dict[Name, Count] = {}
    """By policy name; a name that no policy can have is an error, as its minimum would protect nothing."""


def read_trust_file(path: str | os.PathLike[str]) -> TrustFile:
    """Return the content of the trust file at `path`; keys are not loaded.

    Raises:
        TrustError: it cannot be read or is not of the form that this module describes.
    """
    try:
        data = read_limited(path, _TRUST_BYTES)
    except BudcError as error:
        raise TrustError(f"trust file {path}: {error}", remedy=FORM) from error
    return parse_trust_file(data, path)


def parse_trust_file(data: bytes, path: str | os.PathLike[str]) -> TrustFile:
    """Return the content of a trust file from its bytes. Raises TrustError, naming `path`."""
    try:
        if len(data) > _TRUST_BYTES:
            raise ValueError(f"over {_TRUST_BYTES} bytes")
        return msgspec.convert(parse_toml(data), TrustFile)
    except ValueError as error:
        raise TrustError(f"trust file {path}: {error}", remedy=FORM) from error


def long_form(entry: KeyEntry | str) -> KeyEntry:
    """Return an entry of `keys` in its long form."""
    return KeyEntry(file=entry) if isinstance(entry, str) else entry


def key_of(entry: KeyEntry, path: str | os.PathLike[str]) -> PublicKey:
    """Return the key of an entry of the trust file at `path`.

    Raises:
        TrustError, KeyUnusable: it has none, two, or one that cannot be used.
    """
    if (entry.file is None) == (entry.pem is None):
        raise TrustError(f"trust file {path}: a key needs either `file` or `pem`", remedy=FORM)
    if entry.file is not None:
        return load_public(Path(path).parent / entry.file)
    try:
        return PublicKey.from_pem((entry.pem or "").encode())
    except KeyUnusable as error:
        raise KeyUnusable(f"trust file {path}: key {entry.name}: {error}") from error
