"""Whom a command believes: the keys and the trust file given with --trust, else the user's trust file."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from budc.schema.errors import ArtifactError, KeyUnusable, UntrustedKey, UsageError

if TYPE_CHECKING:
    from budc.schema.artifact import Artifact
    from budc.schema.keys import PublicKey
    from budc.schema.trust import Trust

_LARGEST_FILE = 1 << 20
_PEM = b"-----BEGIN"


def trust_file() -> Path:
    """Return where the user's trust file is looked for: what BUDC_TRUST names, or the configuration folder."""
    if named := os.environ.get("BUDC_TRUST"):
        return Path(named)
    return Path(click.get_app_dir("budc")) / "trust.toml"


def load_trust(sources: Sequence[Path], required: str | None = None) -> Trust:
    """Return the trust in `sources`, public keys and at most one trust file, or in the user's trust file.

    What a source is, its content says. A trust file's rules (threshold, families, revisions, denials, evaluations)
    also hold for the keys given beside it, which are publishers'. Without sources and without a trust file, nobody is
    trusted.

    Args:
        sources: the files of --trust.
        required: the bounds of --require-evaluation, which hold beside those of a trust file.

    Raises:
        TrustError: a key or a trust file cannot be used.
        UsageError: two trust files are given, or `required` is malformed or cannot be met.
    """
    trust = _loaded(sources)
    return trust if required is None else trust.requiring(required, "--require-evaluation")


def _loaded(sources: Sequence[Path]) -> Trust:
    from budc.schema.keys import load_public
    from budc.schema.trust import Trust

    if not sources:
        path = trust_file()
        # A file that BUDC_TRUST names and that is missing is an error: it was meant to exist.
        return Trust.load(path) if os.path.lexists(path) or "BUDC_TRUST" in os.environ else Trust(keys=())
    key_files = [path for path in sources if _is_key(path)]
    trust_files = [path for path in sources if path not in key_files]
    if len(trust_files) > 1:
        raise UsageError(
            f"--trust: {trust_files[0]} and {trust_files[1]} are both trust files, whose rules may contradict",
            remedy="give one trust file, and further keys as PEM files",
        )
    trust = Trust.load(trust_files[0]) if trust_files else Trust(keys=())
    return with_keys(trust, *(load_public(path) for path in key_files))


def with_keys(trust: Trust, *keys: PublicKey) -> Trust:
    """Return `trust` with further keys, under the same rules."""
    return replace(trust, keys=tuple(dict.fromkeys((*trust.keys, *keys))))


def open_trusted(source: bytes | Path, trust: Trust, *, allow_unsigned: bool = False) -> Artifact:
    """Open an artifact as `budc.schema.artifact.open_artifact` does, with a remedy where nobody is trusted.

    Raises:
        BudcError: see `open_artifact`.
    """
    from budc.schema.artifact import open_artifact

    try:
        return open_artifact(source, trust, allow_unsigned=allow_unsigned)
    except UntrustedKey as error:
        if trust.keys:
            raise
        remedy = f"--trust PUB, the publisher's public key, or `budc trust add PUB` ({trust_file()})"
        raise UntrustedKey(str(error), remedy=remedy) from error


def _is_key(path: Path) -> bool:
    """Return whether a file is a key in PEM, and not a trust file. Raises KeyUnusable where it is neither."""
    from budc.schema.files import read_limited

    try:
        content = read_limited(path, _LARGEST_FILE)
    except ArtifactError as error:
        raise KeyUnusable(f"--trust: {error}") from error
    try:
        # A trust file may hold keys in PEM, but no PEM is TOML.
        if tomllib.loads(content.decode("utf-8")):
            return False
    except (ValueError, RecursionError):
        if _PEM in content:
            return True
    raise KeyUnusable(
        f"--trust: {path} is neither a public key (PEM) nor a trust file (TOML)",
        remedy="`budc keygen` makes keys, `budc trust --help` shows the form of a trust file",
    )
