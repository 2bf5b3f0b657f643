"""`budc verify`: every layer of an artifact, and the model's files, checked; one line for each that passed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from budc.cli.trusted import load_trust, open_trusted
from budc.schema.errors import printable

if TYPE_CHECKING:
    from budc.schema.artifact import Artifact
    from budc.schema.trust import Trust

Say = Callable[[str, str], None]


@click.command("verify")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Also check the model in this folder, file by file.",
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
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def verify_command(
    file: Path, weights: Path | None, keys: tuple[Path, ...], rehash: bool, as_json: bool
) -> None:
    """Check whether the artifact FILE can be believed.

    Layers are checked from the outside in and the first that fails ends it, with an exit code of its own. An
    unsigned artifact never passes.

    Without --key the user's trust file says whom to believe; see `budc trust --help`.
    """
    layers: list[dict[str, str]] = []

    def say(layer: str, detail: str) -> None:
        layers.append({"layer": layer, "detail": detail})
        if not as_json:
            click.echo(f"ok  {layer:<9}  {detail}")

    trust = load_trust(keys)
    artifact = _open(file, trust, say)
    variant = _check_model(artifact, weights, rehash, say) if weights is not None else None
    if as_json:
        click.echo(json.dumps(_record(artifact, variant, layers), indent=1))
    elif weights is None:
        click.echo("--  model      not checked: pass --weights DIR")


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
    from budc.compiler.progress import hashing
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
