"""`budc bind`: bind a policy to an exported model as well, once both forms were measured to agree."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from budc.cli.options import (
    PATH,
    json_option,
    out_option,
    rehash_option,
    revision_option,
    signing_options,
    trust_options,
    weights_option,
)
from budc.schema.errors import UsageError

if TYPE_CHECKING:
    from budc.cli.generation.converted import ConvertedExport
    from budc.compiler.evaluation.parity import Parity
    from budc.schema.artifact import Artifact
    from budc.schema.digest_cache import DigestCache
    from budc.schema.keys import Signer
    from budc.schema.policy import PolicyDocument, Variant


@dataclass(frozen=True)
class BindOptions:
    """The flags of `budc bind`; `export` is the folder of the exported model."""

    policy: Path
    export: Path
    key: str | None
    public: Path | None
    trusted: tuple[Path, ...]
    allow_unsigned: bool
    weights: Path | None
    samples: int
    rehash: bool
    revision: int | None
    out: Path | None
    as_json: bool


@click.command("bind")
@click.argument("policy", type=PATH)
@click.option(
    "--variant",
    "export",
    required=True,
    type=PATH,
    metavar="DIR",
    help="Folder that `budc export onnx` wrote.",
)
@signing_options
@trust_options
@weights_option()
@click.option(
    "--samples",
    type=click.IntRange(1, 64),
    default=4,
    show_default=True,
    metavar="N",
    help="Held-out prompts to compare on.",
)
@rehash_option
@revision_option("the next one")
@out_option("FILE", "Artifact to write; default NAME.VARIANT.budc.json beside POLICY.")
@json_option
def bind_command(**flags: Any) -> None:
    """Bind the artifact POLICY to an exported model as well.

    Held-out prompts run under the policy in PyTorch and in ONNX Runtime; final latents and frames must agree. The new
    artifact lists the export's files as one more variant, names POLICY under derivedFrom and is signed with --key.

    POLICY must be signed by a key that you trust. The key that --key signs with counts as trusted, within the limits
    of the trust file.
    """
    options = BindOptions(**flags)
    signer = _signer(options)
    artifact = _open(options, signer)
    path = _target(options)
    bound, variant, parity = _bind(options, artifact, signer, path)
    click.echo(
        json.dumps(_record(bound, variant, parity), indent=1)
        if options.as_json
        else _page(bound, variant, parity)
    )


def _signer(options: BindOptions) -> Signer:
    from budc.schema.keys import load_public, load_signer

    if options.key is None:
        raise UsageError("no key given", remedy="--key KEY; `budc keygen` makes one")
    public = load_public(options.public) if options.public is not None else None
    return load_signer(options.key, public=public)


def _open(options: BindOptions, signer: Signer) -> Artifact:
    """Open the policy, which must be believed, and check that the new revision is a later one."""
    from budc.cli.trust_store import load_trust, open_trusted, with_keys
    from budc.schema.keys import public_of

    # The key need not be listed in the trust file; the file's rules hold for it all the same.
    trust = with_keys(load_trust(options.trusted), public_of(signer))
    artifact = open_trusted(options.policy, trust, allow_unsigned=options.allow_unsigned)
    current = artifact.document.revision
    if options.revision is not None and options.revision <= current:
        raise UsageError(
            f"--revision: {options.revision} is not above the policy's own, {current}",
            remedy=f"--revision {current + 1}, or leave it out",
        )
    return artifact


def _target(options: BindOptions) -> Path:
    """Return where the new artifact goes, which can be written."""
    from budc.runtimes.exported.manifest import read_manifest, variant_name
    from budc.schema.artifact import SUFFIX
    from budc.schema.files import check_place

    path = options.out
    if path is None:
        variant = variant_name(read_manifest(options.export))
        path = options.policy.with_name(f"{options.policy.name.removesuffix(SUFFIX)}.{variant}{SUFFIX}")
    check_place(path)
    return path


def _bind(
    options: BindOptions, artifact: Artifact, signer: Signer, path: Path
) -> tuple[Artifact, Variant, Parity]:
    """Compare both forms and write the new artifact; return it, the variant that it gained, and how they agree."""
    from budc.cli.dependencies import MODEL_PACKAGES, ONNX_PACKAGES, model_libraries, require
    from budc.progress import hashing
    from budc.schema.artifact import read, seal
    from budc.schema.digest_cache import DigestCache
    from budc.schema.files import write_atomic

    require(*MODEL_PACKAGES, *ONNX_PACKAGES, extra="export")
    document = artifact.document
    digests = DigestCache.of_user(watch=hashing, rehash=options.rehash)
    weights = _original(document, options.weights, digests)
    with model_libraries():
        from budc.cli.generation.converted import ConvertedExport
        from budc.compiler.evaluation.parity import check_parity, rebound
        from budc.runtimes.exported.folder import describe_export

        variant, manifest = describe_export(options.export, sha256=digests)
        converted = ConvertedExport(document, variant, options.export, digests)
        parity = _measure(document, weights, converted, options.samples)
        check_parity(parity, manifest.dtype)
    write_atomic(path, seal(rebound(artifact, variant, parity, options.revision), signer))
    return read(path), variant, parity


def _original(document: PolicyDocument, weights: Path | None, digests: DigestCache) -> Path:
    """Return the folder of the model that the policy was compiled for, whose files are checked."""
    from budc.compiler.models.model import check_single
    from budc.policies.profile import find_weights
    from budc.runtimes.diffusers.pipeline import profile_of
    from budc.runtimes.exported.manifest import MANIFEST
    from budc.schema.digests import find_variant

    profile = profile_of(document)
    check_single(profile, "bind")
    folder = find_weights(profile, weights)
    originals = [variant for variant in document.model.variants if MANIFEST not in variant.files]
    find_variant(folder, originals, sha256=digests)
    return folder


def _measure(document: PolicyDocument, weights: Path, converted: ConvertedExport, samples: int) -> Parity:
    """Run held-out prompts under the policy in both forms."""
    import msgspec

    from budc.compiler.evaluation.parity import measure_parity
    from budc.compiler.models.model import as_measured, default_device, load_model
    from budc.runtimes.diffusers.pipeline import profile_of

    # In float32 whatever the policy was measured in: rounding would hide what a conversion changed.
    profile = msgspec.structs.replace(as_measured(profile_of(document), document.shape), dtype="float32")
    return measure_parity(load_model(profile, weights, default_device()), document, converted, samples)


def _page(bound: Artifact, variant: Variant, parity: Parity) -> str:
    from budc.cli.output.tables import fields
    from budc.schema.errors import printable

    document = bound.document
    return fields(
        [
            ("wrote", printable(str(bound.path))),
            ("policy", f"{bound.policy_id}, revision {document.revision}"),
            ("derived from", str(document.derived_from)),
            ("variant", f"{variant.name}, {len(variant.files)} files"),
            ("parity", str(parity)),
        ]
    )


def _record(bound: Artifact, variant: Variant, parity: Parity) -> dict[str, object]:
    return {
        "path": str(bound.path),
        "policyId": bound.policy_id,
        "revision": bound.document.revision,
        "derivedFrom": bound.document.derived_from,
        "signedBy": [signature.keyid for signature in bound.signatures],
        "variant": variant.name,
        "parity": {
            "samples": len(parity.latents),
            "latents": max(parity.latents),
            "latentsMedian": parity.median,
            "frames": max(parity.frames),
        },
    }
