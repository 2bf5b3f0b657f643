"""`budc evaluate`: policies and rivals on one's own weights: metrics, latency, and other settings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from budc.cli.completion import metrics, rivals, several_of
from budc.cli.help import SectionedCommand
from budc.cli.options import (
    PATH,
    cluster_options,
    device_option,
    json_option,
    lora_option,
    offload_option,
    own_model_option,
    progress_option,
    rehash_option,
    seed_option,
    weights_option,
)
from budc.cli.trust_options import optional_signer, signing_options, trust_options

if TYPE_CHECKING:
    from budc.compiler.evaluate_request import EvaluationPlan
    from budc.compiler.evaluated import Evaluated
    from budc.schema.attestation import Attestation
    from budc.schema.evaluation import EvaluationDocument
    from budc.schema.signers import Signer

_COUNT = click.IntRange(min=1)


@click.command("evaluate", cls=SectionedCommand)
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
    shell_complete=several_of(metrics),
    help="Metrics of frames with commas between, such as psnr,ssim; default all that can be measured here.",
)
@click.option(
    "--metric-weights",
    type=PATH,
    metavar="DIR",
    help="Weights of lpips, clip-score and other metrics with networks: a folder of each metric's own folder.",
)
@click.option("--no-frames", is_flag=True, help="Decode nothing: latent errors alone.")
@click.option(
    "--keep-frames",
    is_flag=True,
    help="Keep frames of the best, the median and the worst prompt beside the evaluation, for `budc report`.",
)
@click.option(
    "--against",
    metavar="NAMES",
    shell_complete=several_of(rivals),
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
@click.option("--summary", is_flag=True, help="Leave out the values of each prompt, which take most space.")
@lora_option
@seed_option
@trust_options
@signing_options
@click.option(
    "--out",
    type=PATH,
    default=Path("evaluation"),
    show_default=True,
    metavar="DIR",
    help="Where measurements are kept, and the evaluation if it is not signed.",
)
@device_option
@offload_option
@rehash_option
@cluster_options()
@progress_option
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

    With --key the evaluation is signed and written beside FILE, where `budc verify FILE` finds it. The policy may be
    another publisher's.
    """
    from budc.cli.output.evaluated import written, written_record
    from budc.cli.output.verdict import verdict
    from budc.cli.trust_store import load_trust, open_trusted
    from budc.compiler.evaluate_request import EvaluateRequest

    signer, summary = optional_signer(flags.pop("key"), flags.pop("public")), flags.pop("summary")
    # A policy that is being evaluated need not have been evaluated before.
    trust = replace(load_trust(trusted), required=())
    artifacts = tuple(open_trusted(path, trust, allow_unsigned=allow_unsigned) for path in policies)
    given = {name: value for name, value in flags.items() if value is not None}
    plan = EvaluateRequest(policies=artifacts, **given).resolve()
    targets = _targets(plan, signer)
    evaluated = _evaluate(plan)
    if summary:
        evaluated = [replace(item, document=item.document.summary()) for item in evaluated]
    files = _write(evaluated, targets, signer)
    if as_json:
        click.echo(json.dumps([written_record(path, document) for path, document, _ in files], indent=1))
    else:
        verdicts = [
            verdict(artifact.document, [document])
            for artifact, (_, document, _) in zip(artifacts, files, strict=True)
        ]
        pages = [f"{sentence}\n\n{written(*file)}" for sentence, file in zip(verdicts, files, strict=True)]
        click.echo("\n\n".join(pages))


def _targets(plan: EvaluationPlan, signer: Signer | None) -> list[Path]:
    """Return where the evaluation of each policy is written. Raises OutputError where that cannot be."""
    from budc.schema.attestation import SUFFIX
    from budc.schema.errors import OutputError
    from budc.schema.evaluations import evaluation_path
    from budc.schema.files import check_place
    from budc.schema.signers import public_of

    if signer is None:
        return [plan.out / f"{artifact.document.name}{SUFFIX}" for artifact in plan.policies]
    files = [artifact.path for artifact in plan.policies if artifact.path is not None]
    targets = [evaluation_path(file, public_of(signer)) for file in files]
    for target in targets:
        try:
            check_place(target)
        except OutputError as error:
            raise OutputError(
                f"{target}: a signed evaluation is written beside the policy, and that cannot be written",
                remedy="copy the policy to a folder of your own, or leave out --key and sign the evaluation later",
            ) from error
    return targets


def _write(
    evaluated: Sequence[Evaluated], targets: Sequence[Path], signer: Signer | None
) -> list[tuple[Path, EvaluationDocument, Attestation | None]]:
    """Write evaluations, whole or not at all, after their frames; every one is signed before the first is written.

    Returns the file of each, what was measured, and the signed statement.
    """
    from budc.schema.attestation import read_evaluation

    contents = [item.content(signer) for item in evaluated]
    for item, target, content in zip(evaluated, targets, contents, strict=True):
        item.write(target, content)
    signed = [None if signer is None else read_evaluation(content) for content in contents]
    return list(zip(targets, [item.document for item in evaluated], signed, strict=True))


def _evaluate(plan: EvaluationPlan) -> list[Evaluated]:
    """Measure; return an evaluation of each policy."""
    from budc.cli.dependencies import MODEL_PACKAGES, RESUMES, model_libraries, require, require_ray

    require(*MODEL_PACKAGES, *(["peft"] if any(change.adapters for change in plan.settings) else []))
    require_ray(plan.cluster)
    with model_libraries(if_stopped=RESUMES):
        from budc.compiler.evaluate import evaluate

        _check_weights(plan)
        return evaluate(plan)


def _check_weights(plan: EvaluationPlan) -> None:
    """Refuse a folder that a policy was not made for. Raises ModelError."""
    from budc.progress import hashing
    from budc.runtimes.sampling.network_config import library_defaults
    from budc.schema.digest_cache import DigestCache
    from budc.schema.model_files import accepted_files

    digests = DigestCache.of_user(watch=hashing, rehash=plan.rehash)
    for artifact in plan.policies:
        accepted_files(plan.folder, artifact.document.model, digests, library_defaults)
