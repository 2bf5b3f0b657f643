"""`budc inspect`: what an artifact says, for a person. Nothing is verified."""

from __future__ import annotations

import json
from pathlib import Path

import click

from budc.cli.options import PATH, json_option


@click.command("inspect")
@click.argument("file", type=PATH)
@json_option
def inspect_command(file: Path, as_json: bool) -> None:
    """Show what the artifact FILE says.

    Its format is checked, signatures are not: believe nothing of it before `budc verify` has passed.
    """
    from budc.cli.output.artifact import page, record
    from budc.schema.artifact import read

    artifact = read(file)
    click.echo(json.dumps(record(artifact), indent=1) if as_json else page(artifact))
