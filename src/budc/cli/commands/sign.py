"""`budc sign`: sign an artifact that is already compiled, or an evaluation that is already measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from budc.cli.options import PATH, out_option
from budc.cli.trust_options import required_signer, signing_options

if TYPE_CHECKING:
    from budc.schema.signers import Signer


@click.command("sign")
@click.argument("file", type=PATH)
@signing_options
@out_option("FILE", "File to write; default FILE itself.")
@click.option("--replace", is_flag=True, help="Drop the signatures that it has.")
def sign_command(file: Path, key: str | None, public: Path | None, out: Path | None, replace: bool) -> None:
    """Sign the artifact or the evaluation FILE, or add a signature to those it has.

    The content keeps every byte and its id. Its form is checked before it is signed; whether it is true is for you to
    judge, with `budc inspect` and `budc verify`. An evaluation that `budc evaluate` wrote without a key becomes a
    signed one. The passphrase of a key or the PIN of a token is taken from BUDC_SECRET, or asked for.
    """
    from budc.cli.output.tables import fields
    from budc.schema.attestation import UNSIGNED_BYTES, is_evaluation
    from budc.schema.files import read_limited, write_atomic
    from budc.schema.printable import printable

    signer = required_signer(key, public)
    content = read_limited(file, UNSIGNED_BYTES)
    sign = _signed_evaluation if is_evaluation(content) else _signed_policy
    data, pairs = sign(content, signer, replace)
    target = file if out is None else out
    write_atomic(target, data)
    click.echo(fields([("wrote", printable(str(target))), *pairs]))


def _signed_policy(content: bytes, signer: Signer, replace: bool) -> tuple[bytes, list[tuple[str, str]]]:
    """Return the signed file of an artifact, and what is said of it."""
    from budc.cli.output.summary import claimed_signers
    from budc.schema.artifact import add_signature, read
    from budc.schema.printable import printable

    data = add_signature(read(content), signer, replace_others=replace)
    signed = read(data)
    document = signed.document
    return data, [
        ("name", printable(f"{document.name}, revision {document.revision}")),
        ("policy", signed.policy_id),
        ("signed by", claimed_signers(signed)),
    ]


def _signed_evaluation(content: bytes, signer: Signer, replace: bool) -> tuple[bytes, list[tuple[str, str]]]:
    """Return the signed file of an evaluation, and what is said of it."""
    from budc.cli.output.evaluated import about
    from budc.schema.attestation import add_signature, read_evaluation

    data = add_signature(read_evaluation(content), signer, replace_others=replace)
    return data, about(read_evaluation(data))
