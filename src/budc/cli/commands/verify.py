"""`budc verify`: every layer of an artifact, and the model's files, checked; what it is worth, and a line a layer."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from budc.cli.options import (
    PATH,
    cluster_options,
    device_option,
    json_option,
    lora_option,
    own_model_option,
    progress_option,
    rehash_option,
    weights_option,
)
from budc.cli.trust_options import former_key_option, require_evaluation_option, trust_option
from budc.schema.errors import ArtifactError, UsageError
from budc.schema.printable import printable

if TYPE_CHECKING:
    from budc.cli.output.layers import Layers
    from budc.cli.verification.options import VerifyOptions
    from budc.schema.trust import Trust


@click.command("verify")
@click.argument("path", type=PATH, metavar="FILE|MODEL_DIR")
@own_model_option
@weights_option("MODEL_DIR, or for FILE not to check the model")
@click.option("--replay", is_flag=True, help="Also measure the report's figures again on the model.")
@click.option("--samples", type=click.IntRange(min=1), metavar="N", help="Replay on N prompts; default all.")
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0, min_open=True),
    metavar="T",
    help="Replay to this relative difference; at most what the report states, which is the default.",
)
@click.option(
    "--held-out", type=PATH, metavar="FILE", help="Replay on these prompts, where they are not the profile's."
)
@device_option
@lora_option
@trust_option
@former_key_option
@require_evaluation_option
@click.option(
    "--config",
    type=PATH,
    metavar="CONFIG",
    help="Also check a configuration file that `budc export config --key` wrote with FILE.",
)
@rehash_option
@cluster_options(batch=False)
@progress_option
@json_option
def verify_command(**flags: Any) -> None:
    """Check whether an artifact can be believed.

    Checks the artifact FILE, or every artifact attached to MODEL_DIR, from the outside in, layer by layer. The first
    layer that fails ends the command, with an exit code of its own. An unsigned artifact never passes. Evaluations
    beside the artifact are listed, those by trusted evaluators with their figures. What the policy is worth comes
    first, and only where every layer passed.

    Without --trust your own trust file says whom to believe; see `budc trust --help`.
    """
    from budc.cli.trust_store import load_trust
    from budc.cli.verification.options import VerifyOptions

    options = VerifyOptions(**flags)
    _check_flags(options)
    trust = load_trust((*options.trusted, *options.former_keys), options.require_evaluation)
    if not os.path.isdir(options.path):
        record = _verify(options.path, options, trust)
        if options.as_json:
            click.echo(json.dumps(record, indent=1))
        return
    records = []
    for file in _attached(options.path):
        if not options.as_json:
            click.echo(printable(str(file)))
        records.append(_verify(file, options, trust))
    if options.as_json:
        click.echo(json.dumps(records, indent=1))


def _check_flags(options: VerifyOptions) -> None:
    if options.config is not None and os.path.isdir(options.path):
        raise UsageError("--config: it belongs to one policy, not to a folder", remedy="name the policy")
    if options.replay and options.folder is None:
        raise UsageError("--replay measures on a model", remedy="say which: --weights DIR")
    from budc.compiler.cluster import parse_cluster

    parse_cluster(options.ray, options.workers, options.gpus_per_worker)
    how = (
        options.samples, options.tolerance, options.model, options.held_out, options.device, options.ray
    )  # fmt: skip
    if not options.replay and (options.lora or any(value is not None for value in how)):
        raise UsageError(
            "--samples, --tolerance, --model, --held-out, --device, --ray and --lora say how to replay",
            remedy="add --replay",
        )


def _attached(folder: Path) -> list[Path]:
    from budc.schema.discover import policies

    paths = policies(folder)
    if not paths:
        raise ArtifactError(f"no policy is attached to {folder}", remedy="budc attach POLICY MODEL_DIR")
    return paths


def _verify(file: Path, options: VerifyOptions, trust: Trust) -> dict[str, object]:
    """Check one artifact, print what it is worth and the layers that passed, and return its record."""
    from budc.cli.output.layers import Layers

    with Layers(options.as_json) as layers:
        return _check(file, options, trust, layers)


def _check(file: Path, options: VerifyOptions, trust: Trust, layers: Layers) -> dict[str, object]:
    from budc.cli.output import found_evaluations
    from budc.cli.output.layers import record
    from budc.cli.output.summary import quality
    from budc.cli.output.verdict import verdict
    from budc.cli.verification.layers import check_engine_file, check_weights, open_layers
    from budc.cli.verification.replay import replay
    from budc.compiler.evaluation.tolerance import agreed_tolerance
    from budc.policies.listed_adapters import listed_adapters
    from budc.schema.additions import additions

    variant, folder = None, options.folder
    artifact = open_layers(file, trust, layers)
    evaluations = found_evaluations.check_evaluations(artifact, trust, layers)
    # Refused before the model's files are read.
    agreed_tolerance(artifact.document.quality, options.tolerance)
    if options.replay:
        listed_adapters(artifact.document, options.lora)
    if folder is None:
        layers.unchecked("model", "not checked: pass --weights DIR")
    else:
        variant = check_weights(artifact, folder, options.rehash, layers)
        if options.replay:
            replay(artifact, folder, options, layers)
    if options.config is not None:
        check_engine_file(artifact, options.config, layers)
    rule = artifact.document.model.adapters.rule
    layers.unchecked("adapters", f"{rule}; those of a pipeline are checked when it runs")
    if used := additions(artifact.document):
        layers.unchecked("format 1.1", f"{', '.join(used)}; a run checks or refuses each of them")
    believed = [item.evaluation.document for item in evaluations if item.evaluation is not None]
    sentence = verdict(artifact.document, believed)
    layers.passed_all(f"{sentence}\n\n{quality(artifact.document)}")
    listed = [found_evaluations.record(item) for item in evaluations]
    return record(artifact, variant, layers, sentence) | {"evaluations": listed}
