"""Trust: whose signatures are believed, how many are needed, and how old a revision may be.

A trust file is TOML; paths in it are relative to it:

    keys = ["release.pub", "backup.pub"]     # PEM files
    threshold = 1                            # distinct keys that must have signed

    [minimum-revision]                       # per policy name, quoted; a lower revision is a rollback
    "wan2.1-nfe10" = 3

Where the file lives is decided by who calls; an artifact never says what to trust.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from budc.schema.errors import BudcError, KeyUnusable, RevisionTooOld, TrustError
from budc.schema.files import read_limited
from budc.schema.keys import PublicKey, load_public
from budc.schema.policy import PolicyDocument

_TRUST_BYTES = 1 << 20
_REMEDY = "see `budc verify --help` for the form of a trust file"


@dataclass(frozen=True)
class Trust:
    """The trusted keys and the rules that come with them."""

    keys: tuple[PublicKey, ...]
    threshold: int = 1
    minimum_revisions: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.threshold < 1:
            raise TrustError(f"threshold is {self.threshold}, expected 1 or more", remedy=_REMEDY)

    @classmethod
    def from_pem(cls, *paths: str | os.PathLike[str]) -> "Trust":
        """Return the trust in the keys of these PEM files, any one of which suffices. Raises KeyUnusable."""
        return cls(tuple(load_public(path) for path in paths))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Trust":
        """Return what the trust file at `path` says.

        Raises:
            TrustError: it cannot be read or is not of the form that this module describes.
            KeyUnusable: a key that it names cannot be.
        """
        try:
            content = tomllib.loads(read_limited(path, _TRUST_BYTES).decode("utf-8"))
        except (BudcError, ValueError, RecursionError) as error:
            raise TrustError(f"trust file {path}: {error}", remedy=_REMEDY) from error
        unknown = content.keys() - {"keys", "threshold", "minimum-revision"}
        names, threshold = content.get("keys"), content.get("threshold", 1)
        revisions = content.get("minimum-revision", {})
        if unknown:
            raise TrustError(f"trust file {path}: unknown entry {min(unknown)!r}", remedy=_REMEDY)
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise TrustError(f"trust file {path}: `keys` is not a list of paths", remedy=_REMEDY)
        if not _is_count(threshold):
            raise TrustError(f"trust file {path}: `threshold` is not 1 or more", remedy=_REMEDY)
        if not isinstance(revisions, dict) or not all(_is_count(value) for value in revisions.values()):
            raise TrustError(f"trust file {path}: `minimum-revision` is not name = number", remedy=_REMEDY)
        keys = tuple(dict.fromkeys(load_public(Path(path).parent / name) for name in names))
        if threshold > len(keys):
            raise KeyUnusable(f"trust file {path}: {threshold} signatures required of {len(keys)} keys")
        return cls(keys, threshold, revisions)

    def check_revision(self, document: PolicyDocument) -> None:
        """Refuse a revision below the minimum for the document's name. Raises RevisionTooOld."""
        minimum = self.minimum_revisions.get(document.name, 1)
        if document.revision < minimum:
            raise RevisionTooOld(
                f"{document.name} is revision {document.revision}, the trust file asks for {minimum} or later"
            )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
