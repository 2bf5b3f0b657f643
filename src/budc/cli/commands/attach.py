"""`budc attach`: an artifact to its place beside the model that it is for."""

from __future__ import annotations

from pathlib import Path

import click

from budc.schema.errors import printable

_PATH = click.Path(path_type=Path)


@click.command("attach")
@click.argument("policy", type=_PATH)
@click.argument("model", type=_PATH, metavar="MODEL_DIR")
@click.option(
    "--user", is_flag=True, help="Leave MODEL_DIR as it is; keep the policy in a folder of your own."
)
@click.option("--rehash", is_flag=True, help="Hash every file of the model again.")
def attach_command(policy: Path, model: Path, user: bool, rehash: bool) -> None:
    """Put the artifact POLICY beside the model in MODEL_DIR, which must be the one that it was compiled for.

    `budc verify MODEL_DIR` and `budc run MODEL_DIR` find it there. It is not trusted for being there.
    """
    from budc.progress import hashing
    from budc.schema.digest_cache import DigestCache
    from budc.schema.discover import SIGNATURE, attach

    digests = DigestCache.of_user(watch=hashing, rehash=rehash)
    target = attach(policy, model, user=user, sha256=digests)
    click.echo(f"attached  {printable(str(target))}")
    if not user and (model / SIGNATURE).exists():
        click.echo(
            f"{printable(str(model / SIGNATURE))} was made before: verifying it will report budc/{target.name} as an "
            "extra file. Sign the model again, or remove the policy and attach it with --user",
            err=True,
        )
