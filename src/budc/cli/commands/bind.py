"""`budc bind`: a policy is bound to an exported model as well, after both forms were seen to make the same."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from budc.cli.dependencies import MODEL_PACKAGES, ONNX_PACKAGES, quiet_libraries, require
from budc.cli.generation.converted import ConvertedExport
from budc.cli.options import signing_options
from budc.cli.output.tables import fields
from budc.cli.trust_store import load_trust, open_trusted
from budc.runtimes.diffusers.pipeline import profile_of
from budc.schema.errors import UsageError, printable

if TYPE_CHECKING:
    from budc.compiler.evaluation.parity import Parity
    from budc.schema.artifact import Artifact
    from budc.schema.digest_cache import DigestCache
    from budc.schema.policy import PolicyDocument, Variant

_PATH = click.Path(path_type=Path)


@click.command("bind")
@click.argument("policy", type=_PATH)
@click.option(
    "--variant", "export", required=True, type=_PATH, metavar="DIR", help="What `budc export onnx` wrote."
)
@signing_options
@click.option(
    "--trust",
    "trusted",
    multiple=True,
    type=_PATH,
    metavar="PUB",
    help="Whose POLICY is believed, in place of the trust file; the signing key is trusted beside either, "
    "within the trust file's limits.",
)
@click.option("--allow-unsigned", is_flag=True, help="Bind a policy that nobody signed.")
@click.option(
    "--weights", type=_PATH, metavar="DIR", help="The original model; default embedded, or the hub cache."
)
@click.option(
    "--samples",
    type=click.IntRange(1, 64),
    default=4,
    show_default=True,
    help="Held-out prompts to compare on.",
)
@click.option("--rehash", is_flag=True, help="Hash every file of both models again.")
@click.option("--revision", type=click.IntRange(1), help="Revision to write; default the next one.")
@click.option("--out", type=_PATH, metavar="FILE", help="Artifact to write; default NAME.VARIANT.budc.json.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def bind_command(
    policy: Path,
    export: Path,
    key: str | None,
    public: Path | None,
    trusted: tuple[Path, ...],
    allow_unsigned: bool,
    weights: Path | None,
    samples: int,
    rehash: bool,
    revision: int | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Bind the artifact POLICY to an exported model, too, and sign it anew.

    Held-out prompts run under the policy in PyTorch and in ONNX Runtime; final latents and frames must agree. The new
    artifact lists the export's files as one more variant and names POLICY under derivedFrom.
    """
    if key is None:
        raise UsageError("no key given", remedy="--key KEY; `budc keygen` makes one")
    require(*MODEL_PACKAGES, *ONNX_PACKAGES, extra="export")
    from budc.progress import hashing
    from budc.runtimes.exported.folder import describe_export
    from budc.schema.artifact import SUFFIX, read, seal
    from budc.schema.digest_cache import DigestCache
    from budc.schema.files import check_place, write_atomic
    from budc.schema.keys import load_public, load_signer, public_of

    signer = load_signer(key, public=load_public(public) if public is not None else None)
    # The key need not be listed; where it is, or the file asks for more of every signature, the file wins.
    known, own = load_trust(trusted), public_of(signer)
    trust = replace(known, keys=(*(key for key in known.keys if key != own), own))
    artifact = open_trusted(policy, trust, allow_unsigned=allow_unsigned)
    _check_revision(artifact.document, revision)
    digests = DigestCache.of_user(watch=hashing, rehash=rehash)
    variant, manifest = describe_export(export, sha256=digests)
    path = out or policy.with_name(f"{policy.name.removesuffix(SUFFIX)}.{variant.name}{SUFFIX}")
    check_place(path)
    with contextlib.redirect_stdout(sys.stderr):
        from budc.compiler.bind import rebound
        from budc.compiler.evaluation.parity import check_parity

        quiet_libraries()
        parity = _measure(artifact, variant, export, weights, samples, digests)
        check_parity(parity, manifest.dtype)
    document = rebound(artifact, variant, parity, revision)
    write_atomic(path, seal(document, signer))
    bound = read(path)
    click.echo(
        json.dumps(_record(bound, variant, parity), indent=1) if as_json else _page(bound, variant, parity)
    )


def _check_revision(document: PolicyDocument, revision: int | None) -> None:
    if revision is not None and revision <= document.revision:
        raise UsageError(
            f"--revision: {revision} is not above the policy's own, {document.revision}",
            remedy=f"--revision {document.revision + 1}, or leave it out",
        )


def _measure(
    artifact: Artifact,
    variant: Variant,
    export: Path,
    weights: Path | None,
    samples: int,
    digests: DigestCache,
) -> Parity:
    import msgspec

    from budc.compiler.evaluation.parity import measure_parity
    from budc.compiler.models.model import default_device, load_model, with_shape
    from budc.compiler.models.supported import check_one_denoiser
    from budc.policies.profile import find_weights
    from budc.runtimes.exported.manifest import MANIFEST
    from budc.schema.digests import find_variant

    document = artifact.document
    profile = profile_of(document)
    check_one_denoiser(profile, "bind")
    folder = find_weights(profile, weights)
    originals = [known for known in document.model.variants if MANIFEST not in known.files]
    find_variant(folder, originals, sha256=digests)
    converted = ConvertedExport(document, variant, export, digests)
    # In float32 whatever the policy was measured in: rounding would hide what a conversion changed.
    profile = msgspec.structs.replace(with_shape(profile, document.shape), dtype="float32")
    model = load_model(profile, folder, default_device())
    return measure_parity(model, document, converted, samples)


def _page(bound: Artifact, variant: Variant, parity: Parity) -> str:
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
