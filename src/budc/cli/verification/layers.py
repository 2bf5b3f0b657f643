"""The layers of an artifact, from the outside in, then the model's files and an engine's configuration: a line each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from budc.schema.printable import printable

if TYPE_CHECKING:
    from budc.cli.output.layers import Layers
    from budc.schema.artifact import Artifact
    from budc.schema.trust import Trust


def open_layers(file: Path, trust: Trust, layers: Layers) -> Artifact:
    """Return the artifact, opened; say of each layer that passed what was checked.

    Raises:
        BudcError: the first layer that fails.
    """
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
    # The evaluations that `trust` requires are listed by the caller, before they are judged.
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


def check_weights(artifact: Artifact, folder: Path, rehash: bool, layers: Layers) -> str | None:
    """Check the files of the model; return the variant, None where a network is bound to no files.

    Raises:
        BudcError: they are not those that the policy is for.
    """
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


def check_engine_file(artifact: Artifact, path: Path, layers: Layers) -> None:
    """Check the configuration of another engine that the policy was written to. Raises BudcError where it differs."""
    from budc.runtimes.targets.binding import check_configuration
    from budc.schema.canonical import MAX_BYTES
    from budc.schema.files import read_limited

    content = read_limited(path, MAX_BYTES)
    check_configuration(artifact.document, content, str(path))
    layers.passed("config", printable(f"{path}, the file that the policy is bound to"))
