"""`budc attach`: put an artifact beside the model that it is for."""

from __future__ import annotations

import os
from pathlib import Path

import click

from budc.cli.options import PATH, rehash_option


@click.command("attach")
@click.argument("policy", type=PATH)
@click.argument("model", type=PATH, metavar="MODEL_DIR")
@click.option(
    "--user", is_flag=True, help="Leave MODEL_DIR as it is; keep the policy in a folder of your own."
)
@rehash_option
def attach_command(policy: Path, model: Path, user: bool, rehash: bool) -> None:
    """Put the artifact POLICY beside its model.

    MODEL_DIR must hold the model that the policy was compiled for. `budc verify MODEL_DIR` and `budc run MODEL_DIR`
    find the policy there, and believe it only if you trust its signer.
    """
    from budc.progress import hashing
    from budc.schema.digest_cache import DigestCache
    from budc.schema.discover import SIGNATURE, attach
    from budc.schema.printable import printable

    digests = DigestCache.of_user(watch=hashing, rehash=rehash)
    target, changed = attach(policy, model, user=user, digests=digests)
    click.echo(f"attached  {printable(str(target))}{'' if changed else ', as it was: nothing changed'}")
    if not user and os.path.lexists(model / SIGNATURE):
        click.echo(
            f"{printable(str(model / SIGNATURE))} was made before: verifying it will report budc/{target.name} as an "
            "extra file. Sign the model again, or remove the policy and attach it with --user",
            err=True,
        )
