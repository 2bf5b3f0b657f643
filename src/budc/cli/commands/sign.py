"""`budc sign`: put a signature on an artifact that stands."""

from __future__ import annotations

from pathlib import Path

import click

from budc.cli.options import signing_options
from budc.cli.output.summary import claimed_signers
from budc.cli.output.tables import fields
from budc.schema.errors import UsageError, printable

_PATH = click.Path(path_type=Path)


@click.command("sign")
@click.argument("file", type=_PATH)
@signing_options
@click.option("--out", type=_PATH, metavar="FILE", help="Write here instead of over FILE.")
@click.option("--replace", "replace", is_flag=True, help="Drop the signatures that are there.")
def sign_command(file: Path, key: str | None, public: Path | None, out: Path | None, replace: bool) -> None:
    """Sign the artifact FILE, or add a signature to those it has.

    The policy stays what it is, to the byte, and keeps its id. It is checked against schema and semantics before it
    is signed; whether it is true is yours to judge, with `budc inspect` and `budc verify`. The passphrase of a key
    or the PIN of a token is taken from BUDC_SECRET, or asked for.
    """
    from budc.schema.artifact import add_signature, read
    from budc.schema.files import write_atomic
    from budc.schema.keys import load_public, load_signer

    if key is None:
        raise UsageError("no key given", remedy="budc sign FILE --key KEY; `budc keygen` makes one")
    artifact = read(file)
    signer = load_signer(key, public=load_public(public) if public is not None else None)
    data = add_signature(artifact, signer, replace_others=replace)
    target = file if out is None else out
    write_atomic(target, data)
    signed = read(data)
    document = signed.document
    pairs = [
        ("wrote", printable(str(target))),
        ("name", printable(f"{document.name}, revision {document.revision}")),
        ("policy", signed.policy_id),
        ("signed by", claimed_signers(signed)),
    ]
    click.echo(fields(pairs))
