"""`budc compile`: a model and a budget become a policy artifact."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from budc.cli.extras import MODEL_PACKAGES, Interrupted, quiet_libraries, require
from budc.cli.summary import budget, claimed_signers, cost, masks, measured_on, quality
from budc.cli.tables import fields

if TYPE_CHECKING:
    from budc.compiler.request import CompileRequest
    from budc.schema.artifact import Artifact

_PATH = click.Path(path_type=Path)


@click.command("compile")
@click.argument("source", required=False, type=_PATH, metavar="[POLICY.toml]")
@click.option("--model", metavar="NAME", help="Model profile; `budc models` lists them.")
@click.option("--budget", metavar="10|2.8x", help="Evaluations per guidance branch, or how many times fewer.")
@click.option("--steps", type=int, help="Sampler steps; default the profile's.")
@click.option(
    "--weights", type=_PATH, metavar="DIR", help="Model folder; default embedded, or the hub cache."
)
@click.option("--search", metavar="NAME", help="Search algorithm; default paper.")
@click.option("--seed", type=int, help="Seed of the search; default 0.")
@click.option("--calibration", type=_PATH, metavar="FILE", help="Prompts to search on, one a line.")
@click.option("--key", type=_PATH, metavar="PEM", help="Private key to sign with; see `budc keygen`.")
@click.option("--out", type=_PATH, metavar="FILE", help="Artifact to write; default NAME.budc.json here.")
@click.option("--name", metavar="NAME", help="Name of the policy; default MODEL-nfeN.")
@click.option("--revision", type=int, help="Revision under that name; default 1.")
@click.option("--download", is_flag=True, default=None, help="Fetch weights that are not here.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of the summary.")
def compile_command(source: Path | None, as_json: bool, **flags: Any) -> None:
    """Search the best policy for a budget and write it as an artifact.

    What to compile is said by flags, or in POLICY.toml under the same names; flags win. Progress goes to stderr.
    A compile that was stopped goes on where it stopped when it is called again.
    """
    from budc.compiler.request import check_request, make_request, read_source

    request = make_request(read_source(source) if source else {}, flags)
    check_request(request)
    try:
        artifact = _compile(request)
    except KeyboardInterrupt:
        raise Interrupted(": the same command goes on where this one stopped") from None
    click.echo(json.dumps(record(artifact), indent=1) if as_json else page(artifact))


def _compile(request: CompileRequest) -> Artifact:
    require(*MODEL_PACKAGES)
    # Whatever a library prints must not end up in the result.
    with contextlib.redirect_stdout(sys.stderr):
        from budc.compiler.compile import compile_policy

        quiet_libraries(downloads=request.download)
        return compile_policy(request)


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
