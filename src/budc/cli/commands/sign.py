"""`budc sign`: sign an artifact that is already compiled."""

from __future__ import annotations

from pathlib import Path

import click

from budc.cli.options import PATH, out_option, required_signer, signing_options


@click.command("sign")
@click.argument("file", type=PATH)
@signing_options
@out_option("FILE", "Artifact to write; default FILE itself.")
@click.option("--replace", is_flag=True, help="Drop the signatures that it has.")
def sign_command(file: Path, key: str | None, public: Path | None, out: Path | None, replace: bool) -> None:
    """Sign the artifact FILE, or add a signature to those it has.

    The policy keeps every byte and its id. Its form is checked before it is signed; whether it is true is for you to
    judge, with `budc inspect` and `budc verify`. The passphrase of a key or the PIN of a token is taken from
    BUDC_SECRET, or asked for.
    """
    from budc.cli.output.summary import claimed_signers
    from budc.cli.output.tables import fields
    from budc.schema.artifact import add_signature, read
    from budc.schema.errors import printable
    from budc.schema.files import write_atomic

    signer = required_signer(key, public)
    artifact = read(file)
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
