"""Whom a command believes: the keys given with --key, else the user's trust file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from budc.schema.errors import UntrustedKey

if TYPE_CHECKING:
    from budc.schema.artifact import Artifact
    from budc.schema.trust import Trust


def trust_file() -> Path:
    """Return where the user's trust file is looked for: what BUDC_TRUST names, or the configuration folder."""
    if named := os.environ.get("BUDC_TRUST"):
        return Path(named)
    return Path(click.get_app_dir("budc")) / "trust.toml"


def load_trust(keys: Sequence[Path]) -> Trust:
    """Return trust in `keys`, or what the user's trust file says, or trust in nobody.

    Raises:
        TrustError: a key or the trust file cannot be used.
    """
    from budc.schema.trust import Trust

    if keys:
        return Trust.from_pem(*keys)
    path = trust_file()
    # A file that the user named and that is not there is an error, not an empty one.
    return Trust.load(path) if path.exists() or "BUDC_TRUST" in os.environ else Trust(keys=())


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
        remedy = f"--key PUB, the publisher's public key, or `budc trust add PUB` ({trust_file()})"
        raise UntrustedKey(str(error), remedy=remedy) from error
