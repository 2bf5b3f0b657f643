"""`budc transfer`: rebind a policy to another model of its family, with coefficients fitted there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from budc.cli.deployment_options import deployment_options
from budc.cli.help import SectionedCommand
from budc.cli.options import (
    PATH,
    cluster_options,
    device_option,
    download_option,
    json_option,
    lora_option,
    name_option,
    no_frames_option,
    offload_option,
    out_option,
    progress_option,
    rehash_option,
    revision_option,
    seed_option,
    states_option,
    verbose_option,
    weights_option,
)
from budc.cli.search_options import effort_option
from budc.cli.trust_options import signing_options, trust_options

if TYPE_CHECKING:
    from budc.compiler.transfer_request import TransferPlan
    from budc.schema.artifact import Artifact


@click.command("transfer", cls=SectionedCommand)
@click.argument("policy", type=PATH)
@click.option("--to", required=True, metavar="MODEL", help="The target, as --model of `budc compile`.")
@weights_option()
@click.option("--frozen", is_flag=True, help="Keep the coefficients as they are.")
@click.option("--nearby", is_flag=True, help="Also try a few masks near the policy's own.")
@click.option(
    "--native", is_flag=True, help="Also search on the target, and report the result for comparison."
)
@click.option(
    "--allow-differences",
    "differing",
    is_flag=True,
    help="Accept another family, number of steps, scheduler or guidance.",
)
@effort_option
@seed_option
@deployment_options
@lora_option
@trust_options
@signing_options
@out_option("FILE", "Artifact to write; default NAME.budc.json here.")
@name_option
@revision_option("1")
@download_option
@device_option
@offload_option
@states_option
@no_frames_option
@rehash_option
@cluster_options()
@progress_option
@verbose_option
@json_option
def transfer_command(
    policy: Path,
    trusted: tuple[Path, ...],
    allow_unsigned: bool,
    verbose: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Rebind a policy to another model of its family.

    Masks and payload of the artifact POLICY stay. Its coefficients stay or are fitted on the target, whichever
    lose less, and are then refined. The report is measured there, beside the policy as it was. The new artifact
    names POLICY under derivedFrom. When a transfer was stopped, the same command resumes it.
    """
    from budc.cli.output.compiled import page, record
    from budc.cli.trust_store import load_trust, open_trusted
    from budc.compiler.transfer_request import TransferRequest

    source = open_trusted(policy, load_trust(trusted), allow_unsigned=allow_unsigned)
    given = {name: value for name, value in flags.items() if value is not None}
    request = TransferRequest(source=source, **given)
    written = _transfer(request.resolve(), download=request.download)
    if as_json:
        click.echo(json.dumps(record(written) | {"derivedFrom": written.document.derived_from}, indent=1))
    else:
        click.echo(page(written, verbose=verbose))


def _transfer(plan: TransferPlan, *, download: bool) -> Artifact:
    from budc.cli.dependencies import MODEL_PACKAGES, RESUMES, model_libraries, require, require_ray

    require(*MODEL_PACKAGES, *(["peft"] if plan.target.adapters else []))
    require_ray(plan.cluster)
    with model_libraries(download=download, if_stopped=RESUMES):
        from budc.compiler.transfer import transfer

        return transfer(plan)
