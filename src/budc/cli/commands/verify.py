"""`budc verify`: every layer of an artifact, and the model's files, checked; one line for each that passed."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from budc.cli.dependencies import MODEL_PACKAGES, quiet_libraries, require
from budc.cli.trust_store import load_trust, open_trusted
from budc.schema.errors import UsageError, printable

if TYPE_CHECKING:
    from budc.schema.artifact import Artifact
    from budc.schema.trust import Trust

Say = Callable[[str, str], None]


@click.command("verify")
@click.argument("path", type=click.Path(path_type=Path), metavar="FILE|MODEL_DIR")
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Also check the model in this folder, file by file; MODEL_DIR is checked as it is.",
)
@click.option(
    "--replay", "replayed", is_flag=True, help="Also measure the report's figures again on the model."
)
@click.option("--samples", type=click.IntRange(min=1), metavar="N", help="Replay on N prompts; default all.")
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0, min_open=True),
    metavar="T",
    help="Replay to this relative difference, stricter than what the report states.",
)
@click.option(
    "--key",
    "keys",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="PUB",
    help="A public key to trust, in place of the trust file; one signature by any --key suffices.",
)
@click.option("--rehash", is_flag=True, help="Hash every file of the model again.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, a list for MODEL_DIR.")
def verify_command(
    path: Path,
    weights: Path | None,
    replayed: bool,
    samples: int | None,
    tolerance: float | None,
    keys: tuple[Path, ...],
    rehash: bool,
    as_json: bool,
) -> None:
    """Check whether the artifact FILE, or every artifact attached to MODEL_DIR, can be believed.

    Layers are checked from the outside in and the first that fails ends it, with an exit code of its own. An
    unsigned artifact never passes.

    Without --key the user's trust file says whom to believe; see `budc trust --help`.
    """
    trust = load_trust(keys)
    folder = path if path.is_dir() else None
    weights = folder if weights is None else weights
    if weights is None and replayed:
        raise UsageError("--replay measures on a model", remedy="say which: --weights DIR")
    if not replayed and (samples is not None or tolerance is not None):
        raise UsageError("--samples and --tolerance say how to replay", remedy="add --replay")
    records = []
    for file in _attached(path) if folder is not None else [path]:
        if folder is not None and not as_json:
            click.echo(printable(str(file)))
        layers: list[dict[str, str]] = []
        say = partial(_say, layers, as_json)
        artifact = _open(file, trust, say)
        variant = _check_model(artifact, weights, rehash, say) if weights is not None else None
        if replayed and weights is not None:
            _replay(artifact, weights, samples, tolerance, say)
        if not as_json:
            if weights is None:
                click.echo("--  model      not checked: pass --weights DIR")
            rule = artifact.document.model.adapters.rule
            click.echo(f"--  adapters   {rule}; those of a pipeline are checked when it runs")
        records.append(_record(artifact, variant, layers))
    if as_json:
        click.echo(json.dumps(records if folder is not None else records[0], indent=1))


def _say(layers: list[dict[str, str]], as_json: bool, layer: str, detail: str) -> None:
    layers.append({"layer": layer, "detail": detail})
    if not as_json:
        click.echo(f"ok  {layer:<9}  {detail}")


def _attached(folder: Path) -> list[Path]:
    from budc.schema.discover import policies
    from budc.schema.errors import ArtifactError

    found = policies(folder)
    if not found:
        raise ArtifactError(f"no policy is attached to {folder}", remedy="budc attach POLICY MODEL_DIR")
    return found


def _replay(artifact: Artifact, folder: Path, samples: int | None, tolerance: float | None, say: Say) -> None:
    require(*MODEL_PACKAGES)
    with contextlib.redirect_stdout(sys.stderr):
        from budc.compiler.evaluation.replay import replay
        from budc.compiler.evaluation.tolerance import agreed_tolerance

        quiet_libraries()
        agreed = agreed_tolerance(artifact.document.quality, tolerance)
        found = replay(artifact.document, folder, samples, agreed)
    for pair in found:
        name, count = pair.reported.name, pair.measured.samples
        detail = f"{name} mean {pair.measured.mean:.4g} of {count} samples, reported {pair.reported.mean:.4g}"
        say("replay", printable(f"{detail} (tolerance {100 * agreed:g} %)"))


def _open(file: Path, trust: Trust, say: Say) -> Artifact:
    from budc.schema.bundle import MEDIA_TYPE, decode_bundle
    from budc.schema.canonical import MAX_BYTES
    from budc.schema.files import read_limited

    # Read once, so that every layer judges the same bytes. Only `open_artifact` decides; the bundle is decoded
    # here first to say how far a refused file came.
    data = read_limited(file, MAX_BYTES)
    say("size", f"{len(data):,} bytes, at most {MAX_BYTES:,}")
    count = len(decode_bundle(data).envelope.signatures)
    say("bundle", f"{MEDIA_TYPE}, {count} signature{'' if count == 1 else 's'}")
    artifact = open_trusted(data, trust)
    for key in artifact.verified_by:
        name = trust.names.get(key.fingerprint)
        say("signature", f"by {f'{name}, ' if name else ''}{key.fingerprint} ({key.algorithm})")
    document = artifact.document
    say(
        "payload", f"canonical JSON, schema {document.schema_version}, semantics; policy {artifact.policy_id}"
    )
    minimum = trust.minimum_revisions.get(document.name)
    asked = f" (at least {minimum} asked for)" if minimum else ""
    until = document.not_after or "further notice"
    say(
        "age",
        printable(f"{document.name} revision {document.revision}{asked}, {document.issued_at} until {until}"),
    )
    return artifact


def _check_model(artifact: Artifact, folder: Path, rehash: bool, say: Say) -> str:
    from budc.progress import hashing
    from budc.schema.digest_cache import DigestCache
    from budc.schema.digests import find_variant

    digests = DigestCache.of_user(watch=hashing, rehash=rehash)
    variant = find_variant(folder, artifact.document.model.variants, sha256=digests)
    say("model", printable(f"variant {variant.name}: all {len(variant.files)} files of {folder}"))
    return variant.name


def _record(artifact: Artifact, variant: str | None, layers: list[dict[str, str]]) -> dict[str, object]:
    return {
        "verified": True,
        "policyId": artifact.policy_id,
        "name": artifact.document.name,
        "revision": artifact.document.revision,
        "signedBy": [key.fingerprint for key in artifact.verified_by],
        "variant": variant,
        "layers": layers,
    }
