"""`budc keygen`: a key pair for signing artifacts."""

from __future__ import annotations

import os
from pathlib import Path

import click

from budc.cli.options import PATH
from budc.schema.errors import OutputError


@click.command("keygen")
@click.option(
    "--out",
    "prefix",
    type=PATH,
    default="budc",
    show_default=True,
    metavar="PREFIX",
    help="Writes PREFIX.key and PREFIX.pub.",
)
@click.option(
    "--encrypt", is_flag=True, help="Protect PREFIX.key with a passphrase: BUDC_SECRET, or asked for."
)
def keygen_command(prefix: Path, encrypt: bool) -> None:
    """Make an ECDSA P-256 key pair for signing artifacts.

    PREFIX.key is the private key, readable by you alone: keep it, and sign with `budc compile --key` or `budc sign`.
    PREFIX.pub is the public key: give it to everyone who should believe your artifacts. Existing files are never
    overwritten.
    """
    from budc.schema.keys import PublicKey
    from budc.schema.secret import ask_secret
    from budc.schema.signers import generate_key

    if not prefix.name:
        raise OutputError(f"--out: {str(prefix)!r} is no file name", remedy="give a prefix such as release")
    private, public = (prefix.with_name(prefix.name + suffix) for suffix in (".key", ".pub"))
    for path in (private, public):
        if os.path.lexists(path):
            raise _exists(path)
    pair = generate_key(os.fsencode(ask_secret(f"passphrase for {private}")) if encrypt else None)
    _create(private, pair.private, 0o600)
    try:
        _create(public, pair.public, 0o644)
    except OutputError:
        # Half a pair would block the next try.
        private.unlink()
        raise
    click.echo(f"private key  {private}")
    click.echo(f"public key   {public}")
    click.echo(f"fingerprint  {PublicKey.from_pem(pair.public).fingerprint}")


def _create(path: Path, data: bytes, mode: int) -> None:
    """Write a file that must not exist yet. If it cannot be written whole, it is removed."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            path.unlink()
            raise
    except FileExistsError:
        raise _exists(path) from None
    except (OSError, ValueError) as error:
        raise OutputError(f"--out: cannot write {path}: {error}") from error


def _exists(path: Path) -> OutputError:
    return OutputError(
        f"--out: {path} exists, and keys are never overwritten",
        remedy="choose another --out, or move the old key away",
    )
