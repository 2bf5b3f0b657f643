"""`budc compile`: a model and a budget become a policy artifact."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from budc.cli.dependencies import MODEL_PACKAGES, Interrupted, quiet_libraries, require
from budc.cli.options import signing_options
from budc.cli.output.summary import (
    beaten,
    budget,
    choices,
    claimed_signers,
    cost,
    masks,
    measured_on,
    pareto,
    quality,
)
from budc.cli.output.tables import fields

if TYPE_CHECKING:
    from budc.compiler.compile_plan import CompilePlan
    from budc.schema.artifact import Artifact

_PATH = click.Path(path_type=Path)


class Steps(click.ParamType[int | str]):
    """A number of steps, or "auto"."""

    name = "steps"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Return an int or "auto"."""
        return "auto" if value == "auto" else int(click.INT.convert(value, param, ctx))


@click.command("compile")
@click.argument("source", required=False, type=_PATH, metavar="[POLICY.toml]")
@click.option("--model", metavar="NAME", help="Model profile; `budc models` lists them.")
@click.option("--budget", metavar="10|2.8x", help="Evaluations per guidance branch, or how many times fewer.")
@click.option("--sweep", metavar="6,8,10", help="Several budgets at once: a family that shares its work.")
@click.option(
    "--steps",
    type=Steps(),
    metavar="N|auto",
    help="Sampler steps; default the profile's. auto: those, or as many as the budget, whichever is better.",
)
@click.option(
    "--weights", type=_PATH, metavar="DIR", help="Model folder; default embedded, or the hub cache."
)
@click.option("--search", metavar="NAME", help="Search algorithm; default joint.")
@click.option(
    "--align", is_flag=True, default=None, help="Train sigmas and coefficients by gradient as well."
)
@click.option(
    "--branches",
    type=click.Choice(["together", "separate"]),
    help="Guidance branches on one mask (default), or each on its own under the same total.",
)
@click.option("--seed", type=int, help="Seed of the search; default 0.")
@click.option("--calibration", type=_PATH, metavar="FILE", help="Prompts to search on, one a line.")
@signing_options
@click.option(
    "--out",
    type=_PATH,
    metavar="PATH",
    help="Artifact to write, or a sweep's folder; default NAME.budc.json here.",
)
@click.option("--name", metavar="NAME", help="Name of the policy; default MODEL-nfeN.")
@click.option("--revision", type=int, help="Revision under that name; default 1.")
@click.option("--download", is_flag=True, default=None, help="Fetch weights that are not here.")
@click.option("--rehash", is_flag=True, default=None, help="Hash every file of the model again.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of the summary.")
def compile_command(source: Path | None, as_json: bool, **flags: Any) -> None:
    """Search the best policy for a budget and write it as an artifact.

    What to compile is said by flags, or in POLICY.toml under the same names; flags win. Progress goes to stderr.
    A compile that was stopped goes on where it stopped when it is called again.
    """
    from budc.compiler.request import make_request, read_source

    request = make_request(read_source(source) if source else {}, flags)
    try:
        artifacts = _compile(request.resolve(), downloads=request.download)
    except KeyboardInterrupt:
        raise Interrupted(": the same command goes on where this one stopped") from None
    if as_json:
        records = [record(artifact) for artifact in artifacts]
        click.echo(json.dumps(records if request.sweep else records[0], indent=1))
        return
    click.echo(pareto(artifacts) if request.sweep else page(artifacts[0]))
    for artifact in artifacts:
        if said := beaten(artifact.document):
            click.echo(f"{artifact.path}: {said}", err=True)


def _compile(plan: CompilePlan, *, downloads: bool) -> list[Artifact]:
    require(*MODEL_PACKAGES)
    # Whatever a library prints must not end up in the result.
    with contextlib.redirect_stdout(sys.stderr):
        from budc.compiler.compile import compile_artifacts

        quiet_libraries(downloads=downloads)
        return compile_artifacts(plan)


def page(artifact: Artifact) -> str:
    """Return what was compiled as a page of text."""
    document = artifact.document
    pairs = [
        ("wrote", str(artifact.path)),
        ("policy", artifact.policy_id),
        ("signed by", _signed(artifact)),
        ("budget", budget(document)),
        *masks(document),
        ("search", cost(document)),
        *choices(document),
        ("quality", measured_on(document)),
    ]
    return f"{fields(pairs)}\n\n{quality(document)}"


def _signed(artifact: Artifact) -> str:
    return (
        claimed_signers(artifact) if artifact.signed else f"{claimed_signers(artifact)}\nto sign, pass --key"
    )


def record(artifact: Artifact) -> dict[str, object]:
    """Return what was compiled as one JSON object."""
    import msgspec

    document = artifact.document
    return {
        "path": str(artifact.path),
        "policyId": artifact.policy_id,
        "name": document.name,
        "revision": document.revision,
        "signedBy": [signature.keyid for signature in artifact.signatures],
        "budget": msgspec.to_builtins(document.budget),
        "steps": document.sampler.steps,
        "policy": msgspec.to_builtins(document.policy),
        "quality": msgspec.to_builtins(document.quality),
        "search": msgspec.to_builtins(document.search),
    }
