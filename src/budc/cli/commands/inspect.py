"""`budc inspect`: what an artifact or an evaluation says, for a person. Nothing is verified."""

from __future__ import annotations

import json
from pathlib import Path

import click

from budc.cli.options import PATH, json_option, verbose_option


@click.command("inspect")
@click.argument("file", type=PATH)
@verbose_option
@json_option
def inspect_command(file: Path, verbose: bool, as_json: bool) -> None:
    """Show what the artifact or the evaluation FILE says.

    Its format is checked, signatures are not: believe nothing of it before `budc verify` has passed.
    """
    from budc.cli.output import artifact, evaluated
    from budc.schema.artifact import read
    from budc.schema.attestation import UNSIGNED_BYTES, is_evaluation, read_evaluation
    from budc.schema.files import read_limited

    content = read_limited(file, UNSIGNED_BYTES)
    if is_evaluation(content):
        evaluation = read_evaluation(content)
        record, page = evaluated.inspected_record(evaluation), evaluated.inspected(evaluation)
    else:
        policy = read(content)
        record, page = artifact.record(policy), artifact.page(policy, verbose=verbose)
    click.echo(json.dumps(record, indent=1) if as_json else page)
