"""`budc verify`: every layer of an artifact, and the model's files, checked; what it is worth, and a line a layer."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from budc.cli.options import (
    PATH,
    cluster_options,
    device_option,
    former_key_option,
    json_option,
    lora_option,
    own_model_option,
    progress_option,
    rehash_option,
    require_evaluation_option,
    trust_option,
    weights_option,
)
from budc.schema.errors import ArtifactError, UsageError, printable

if TYPE_CHECKING:
    from budc.cli.output.layers import Layers
    from budc.schema.artifact import Artifact
    from budc.schema.trust import Trust


@dataclass(frozen=True)
class VerifyOptions:
    """The flags of `budc verify`."""

    path: Path
    model: str | None
    weights: Path | None
    replay: bool
    samples: int | None
    tolerance: float | None
    held_out: Path | None
    device: str | None
    lora: tuple[str, ...]
    trusted: tuple[Path, ...]
    former_keys: tuple[Path, ...]
    require_evaluation: str | None
    config: Path | None
    rehash: bool
    ray: str | None
    workers: int | None
    gpus_per_worker: float | None
    as_json: bool

    @property
    def folder(self) -> Path | None:
        """The model's folder, if its files are to be checked."""
        return self.path if self.weights is None and os.path.isdir(self.path) else self.weights


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
    from budc.compiler.evaluation.tolerance import agreed_tolerance
    from budc.policies.listed_adapters import listed_adapters
    from budc.schema.additions import additions

    variant, folder = None, options.folder
    artifact = _open(file, trust, layers)
    evaluations = found_evaluations.check_evaluations(artifact, trust, layers)
    # Refused before the model's files are read.
    agreed_tolerance(artifact.document.quality, options.tolerance)
    if options.replay:
        listed_adapters(artifact.document, options.lora)
    if folder is None:
        layers.unchecked("model", "not checked: pass --weights DIR")
    else:
        variant = _check_weights(artifact, folder, options.rehash, layers)
        if options.replay:
            _replay(artifact, folder, options, layers)
    if options.config is not None:
        _check_configuration(artifact, options.config, layers)
    rule = artifact.document.model.adapters.rule
    layers.unchecked("adapters", f"{rule}; those of a pipeline are checked when it runs")
    if used := additions(artifact.document):
        layers.unchecked("format 1.1", f"{', '.join(used)}; a run checks or refuses each of them")
    believed = [item.evaluation.document for item in evaluations if item.evaluation is not None]
    sentence = verdict(artifact.document, believed)
    layers.passed_all(f"{sentence}\n\n{quality(artifact.document)}")
    listed = [found_evaluations.record(item) for item in evaluations]
    return record(artifact, variant, layers, sentence) | {"evaluations": listed}


def _open(file: Path, trust: Trust, layers: Layers) -> Artifact:
    from budc.cli.trust_store import open_trusted
    from budc.schema.bundle import MEDIA_TYPE, decode_bundle
    from budc.schema.canonical import MAX_BYTES
    from budc.schema.files import read_limited
    from budc.schema.plural import counted

    # Read once, so that every layer checks the same bytes. Only `open_artifact` decides; the bundle is decoded
    # here first to say how far a refused file came.
    data = read_limited(file, MAX_BYTES)
    layers.passed("size", f"{len(data):,} bytes, at most {MAX_BYTES:,}")
    count = len(decode_bundle(data).envelope.signatures)
    layers.passed("bundle", f"{MEDIA_TYPE}, {counted(count, 'signature')}")
    # The evaluations that `trust` requires are listed below, before they are judged.
    artifact = replace(open_trusted(data, replace(trust, required=())), path=file)
    for key in artifact.verified_by:
        name = trust.names.get(key.fingerprint)
        layers.passed("signature", f"by {f'{name}, ' if name else ''}{key.fingerprint} ({key.algorithm})")
    document = artifact.document
    layers.passed(
        "payload", f"canonical JSON, schema {document.schema_version}, semantics; policy {artifact.policy_id}"
    )
    minimum = trust.minimum_revisions.get(document.name)
    required = f" (at least {minimum} required)" if minimum else ""
    end = document.not_after or "further notice"
    layers.passed(
        "age",
        printable(
            f"{document.name} revision {document.revision}{required}, {document.issued_at} until {end}"
        ),
    )
    return artifact


def _check_configuration(artifact: Artifact, path: Path, layers: Layers) -> None:
    from budc.runtimes.targets.binding import check_configuration
    from budc.schema.canonical import MAX_BYTES
    from budc.schema.files import read_limited

    content = read_limited(path, MAX_BYTES)
    check_configuration(artifact.document, content, str(path))
    layers.passed("config", printable(f"{path}, the file that the policy is bound to"))


def _check_weights(artifact: Artifact, folder: Path, rehash: bool, layers: Layers) -> str | None:
    """Check the files of the model; return the variant, None where a network is bound to no files."""
    from budc.schema.network_files import check_tensor_roots

    model = artifact.document.model
    if model.kind == "pipeline" or model.variants:
        return _check_model(artifact, folder, rehash, layers)
    names = check_tensor_roots(folder, model.denoisers)
    layers.passed("model", printable(f"tensor root of {', '.join(names)} in {folder}"))
    return None


def _check_model(artifact: Artifact, folder: Path, rehash: bool, layers: Layers) -> str:
    from budc.progress import hashing
    from budc.runtimes.sampling.network_config import library_defaults
    from budc.schema.digest_cache import DigestCache
    from budc.schema.model_files import accepted_files

    digests = DigestCache.of_user(watch=hashing, rehash=rehash)
    variant = accepted_files(folder, artifact.document.model, digests, library_defaults)
    layers.passed("model", printable(f"variant {variant.name}: all {len(variant.files)} files of {folder}"))
    return variant.name


def _replay(artifact: Artifact, folder: Path, options: VerifyOptions, layers: Layers) -> None:
    from budc.cli.dependencies import MODEL_PACKAGES, model_libraries, require, require_ray
    from budc.cli.output.metric_labels import metric_label
    from budc.compiler.cluster import parse_cluster
    from budc.policies.artifact_profile import profile_of
    from budc.schema.plural import counted

    profile = profile_of(artifact.document, options.model)
    require(*MODEL_PACKAGES, *(["peft"] if options.lora else []))
    cluster = parse_cluster(options.ray, options.workers, options.gpus_per_worker)
    require_ray(cluster)
    with model_libraries():
        from budc.compiler.evaluation.replay import ReplayRequest
        from budc.compiler.evaluation.tolerance import agreed_tolerance
        from budc.compiler.workers.replay_workers import replay_on

        tolerance = agreed_tolerance(artifact.document.quality, options.tolerance)
        pairs = replay_on(
            cluster,
            ReplayRequest(
                document=artifact.document,
                folder=folder,
                samples=options.samples,
                tolerance=tolerance,
                profile=profile,
                prompts=options.held_out,
                device=options.device,
                lora=options.lora,
            ),
        )
    for pair in pairs:
        name, count = metric_label(pair.reported.name).title, pair.measured.samples
        detail = (
            f"{name} mean {pair.measured.mean:.4g} of {counted(count, 'sample')}, "
            f"reported {pair.reported.mean:.4g} of {pair.reported.samples} ({pair.rule(tolerance)})"
        )
        layers.passed("replay", printable(detail))
