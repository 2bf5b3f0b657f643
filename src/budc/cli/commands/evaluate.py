"""`budc evaluate`: policies and rivals on one's own weights: metrics, latency, and other settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from budc.cli.options import (
    PATH,
    device_option,
    json_option,
    offload_option,
    own_model_option,
    rehash_option,
    seed_option,
    trust_options,
    weights_option,
)

if TYPE_CHECKING:
    from budc.compiler.evaluate_request import EvaluationPlan
    from budc.schema.evaluation import EvaluationDocument

_COUNT = click.IntRange(min=1)


@click.command("evaluate")
@click.argument("policies", nargs=-1, required=True, type=PATH, metavar="FILE...")
@own_model_option
@weights_option()
@click.option(
    "--prompts",
    type=PATH,
    metavar="FILE",
    help="Prompts to measure on, one a line, or .csv or .jsonl; default the profile's held-out prompts.",
)
@click.option("--samples", type=_COUNT, metavar="N", help="How many of them; default all of FILE.")
@click.option(
    "--calibration",
    type=PATH,
    metavar="FILE",
    help="Prompts to fit rivals on; default the profile's.",
)
@click.option("--calibration-size", type=_COUNT, metavar="N", help="How many of them; default all of FILE.")
@click.option(
    "--metrics",
    metavar="NAMES",
    help="Metrics of frames with commas between, such as psnr,ssim; default all that can be measured here.",
)
@click.option("--no-frames", is_flag=True, help="Decode nothing: latent errors alone.")
@click.option(
    "--against",
    metavar="NAMES",
    help="Rivals with commas between, such as teacache,magcache; all; none; default fewer-steps,uniform.",
)
@click.option(
    "--under",
    multiple=True,
    metavar="KIND=VALUE",
    help="Measure under a change, too: scheduler=euler|unipc|dpm|ipndm2m, size=HxW, frames=N, guidance=G, "
    "negative=TEXT, lora=FILE[:SCALE]. May be given again.",
)
@click.option(
    "--repeats",
    type=click.IntRange(0, 1000),
    default=5,
    show_default=True,
    metavar="N",
    help="Timed rounds of the denoising loop; 0 for no latency.",
)
@seed_option
@trust_options
@click.option(
    "--out",
    type=PATH,
    default=Path("evaluation"),
    show_default=True,
    metavar="DIR",
    help="Where it is written.",
)
@device_option
@offload_option
@rehash_option
@json_option
def evaluate_command(
    policies: tuple[Path, ...],
    trusted: tuple[Path, ...],
    allow_unsigned: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Measure policies on your own weights, beside the full run and rivals at the same number of evaluations.

    Writes NAME.evaluation.json for each policy FILE. All must be for one model, in the same setting. When an evaluation
    was stopped, the same command resumes it; a later one with further metrics or rivals measures only these.
    """
    from budc.cli.output.evaluated import page, record
    from budc.cli.trust_store import load_trust, open_trusted
    from budc.compiler.evaluate_request import EvaluateRequest

    trust = load_trust(trusted)
    artifacts = tuple(open_trusted(path, trust, allow_unsigned=allow_unsigned) for path in policies)
    given = {name: value for name, value in flags.items() if value is not None}
    plan = EvaluateRequest(policies=artifacts, **given).resolve()
    written = _evaluate(plan)
    if as_json:
        click.echo(json.dumps([record(document, path) for path, document in written.items()], indent=1))
    else:
        click.echo("\n\n".join(page(document, path) for path, document in written.items()))


def _evaluate(plan: EvaluationPlan) -> dict[Path, EvaluationDocument]:
    """Evaluate and write; return the documents by their files."""
    from budc.cli.dependencies import MODEL_PACKAGES, RESUMES, model_libraries, require

    require(*MODEL_PACKAGES)
    with model_libraries(if_stopped=RESUMES):
        from budc.compiler.evaluate import evaluate, write_evaluation

        _check_weights(plan)
        return {write_evaluation(document, plan.out): document for document in evaluate(plan)}


def _check_weights(plan: EvaluationPlan) -> None:
    """Refuse a folder that a policy was not made for. Raises ModelError."""
    from budc.progress import hashing
    from budc.runtimes.diffusers.network_config import library_defaults
    from budc.schema.digest_cache import DigestCache
    from budc.schema.model_files import accepted_files

    digests = DigestCache.of_user(watch=hashing, rehash=plan.rehash)
    for artifact in plan.policies:
        accepted_files(plan.folder, artifact.document.model, digests, library_defaults)
