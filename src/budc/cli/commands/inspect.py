"""`budc inspect`: what an artifact or an evaluation says, for a person. Neither is verified."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import click

from budc.cli.options import PATH, json_option, verbose_option
from budc.cli.trust_options import trust_option


@click.command("inspect")
@click.argument("file", type=PATH)
@trust_option
@verbose_option
@json_option
def inspect_command(file: Path, trusted: tuple[Path, ...], verbose: bool, as_json: bool) -> None:
    """Show what the artifact or the evaluation FILE says.

    Its format is checked, signatures are not: believe nothing of it before `budc verify` has passed. What the loop of
    an artifact took is from an evaluation beside it; where nobody whom you trust has signed that, the page says so.
    """
    from budc.cli.output import artifact, evaluated
    from budc.cli.output.loop_speed import claimed_speed
    from budc.cli.trust_store import load_trust
    from budc.schema.artifact import read
    from budc.schema.attestation import UNSIGNED_BYTES, is_evaluation, read_evaluation
    from budc.schema.errors import UsageError
    from budc.schema.files import read_limited

    content = read_limited(file, UNSIGNED_BYTES)
    if is_evaluation(content):
        if trusted:
            raise UsageError(
                f"--trust: {file} is an evaluation, and is shown as it is",
                remedy="inspect the policy, beside which evaluations are looked for",
            )
        evaluation = read_evaluation(content)
        record, page = evaluated.inspected_record(evaluation), evaluated.inspected(evaluation)
    else:
        policy = replace(read(content), path=file)
        speed = claimed_speed(policy, load_trust(trusted))
        record, page = artifact.record(policy, speed), artifact.page(policy, speed, verbose=verbose)
    click.echo(json.dumps(record, indent=1) if as_json else page)
