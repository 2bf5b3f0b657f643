"""`budc transfer`: rebind a policy to another model of its family, with coefficients fitted there."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

import click

from budc.cli.commands.compile import page, record
from budc.cli.dependencies import MODEL_PACKAGES, Interrupted, quiet_libraries, require
from budc.cli.trust_store import load_trust, open_trusted

_PATH = click.Path(path_type=Path)


@click.command("transfer")
@click.argument("policy", type=_PATH)
@click.option("--to", required=True, metavar="MODEL", help="Profile of the target model.")
@click.option("--weights", type=_PATH, metavar="DIR", help="The target's folder.")
@click.option("--out", required=True, type=_PATH, metavar="FILE", help="Artifact to write.")
@click.option("--frozen", is_flag=True, help="Keep the coefficients as they are.")
@click.option("--nearby", is_flag=True, help="Try a few masks near the policy's own on the target, too.")
@click.option("--native", is_flag=True, help="Search on the target as well, and report it beside.")
@click.option(
    "--allow-differences",
    "differing",
    is_flag=True,
    help="Accept another family, number of steps, scheduler or guidance.",
)
@click.option("--key", metavar="PEM", help="Private key to sign the new artifact with.")
@click.option(
    "--trust",
    "publishers",
    multiple=True,
    type=_PATH,
    metavar="PUB",
    help="A public key to trust for POLICY, in place of the trust file.",
)
@click.option("--allow-unsigned", is_flag=True, help="Take a POLICY that nobody signed.")
@click.option("--name", metavar="NAME", help="Name of the new policy; default MODEL-nfeN.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the search of --native.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of the summary.")
def transfer_command(
    policy: Path,
    to: str,
    weights: Path | None,
    out: Path,
    frozen: bool,
    nearby: bool,
    native: bool,
    differing: bool,
    key: str | None,
    publishers: tuple[Path, ...],
    allow_unsigned: bool,
    name: str | None,
    seed: int,
    as_json: bool,
) -> None:
    """Make the policy in the artifact POLICY one for another model of the same family.

    Masks and payload stay; coefficients are fitted on the target, and the report is measured there, beside the
    policy as it came. The new artifact names the old one in `derivedFrom`.
    """
    from budc.compiler.transfer_request import TransferRequest

    require(*MODEL_PACKAGES)
    source = open_trusted(policy, load_trust(publishers), allow_unsigned=allow_unsigned)
    request = TransferRequest(
        source=source,
        to=to,
        weights=weights,
        out=out,
        frozen=frozen,
        nearby=nearby,
        native=native,
        differing=differing,
        key=key,
        name=name,
        seed=seed,
    )
    try:
        plan = request.resolve()
        # Whatever a library prints must not end up in the result.
        with contextlib.redirect_stdout(sys.stderr):
            from budc.compiler.transfer import transfer

            quiet_libraries()
            artifact = transfer(plan)
    except KeyboardInterrupt:
        raise Interrupted(": the same command goes on where this one stopped") from None
    if as_json:
        click.echo(json.dumps(record(artifact) | {"derivedFrom": artifact.document.derived_from}, indent=1))
        return
    click.echo(f"from    {source.policy_id}\n{page(artifact)}")
