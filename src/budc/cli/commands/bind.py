"""`budc bind`: bind a policy to an exported model as well, once both forms were measured to agree."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from budc.cli.options import (
    PATH,
    device_option,
    json_option,
    out_option,
    own_model_option,
    progress_option,
    rehash_option,
    revision_option,
    weights_option,
)
from budc.cli.trust_options import required_signer, signing_options, trust_options
from budc.schema.errors import UsageError

if TYPE_CHECKING:
    from budc.schema.artifact import Artifact
    from budc.schema.signers import Signer


@dataclass(frozen=True)
class BindOptions:
    """The flags of `budc bind`; `export` is the folder of the exported model."""

    policy: Path
    export: Path
    key: str | None
    public: Path | None
    trusted: tuple[Path, ...]
    allow_unsigned: bool
    model: str | None
    weights: Path | None
    samples: int
    device: str | None
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
@own_model_option
@weights_option()
@click.option(
    "--samples",
    type=click.IntRange(1, 64),
    default=4,
    show_default=True,
    metavar="N",
    help="Held-out prompts to compare on.",
)
@device_option
@rehash_option
@revision_option("the next one")
@out_option("FILE", "Artifact to write; default NAME.VARIANT.budc.json beside POLICY.")
@progress_option
@json_option
def bind_command(**flags: Any) -> None:
    """Bind the artifact POLICY to an exported model as well.

    Held-out prompts run under the policy in PyTorch and in ONNX Runtime; final latents and frames must agree. The new
    artifact lists the export's files as one more variant, names POLICY under derivedFrom and is signed with --key.

    POLICY must be signed by a key that you trust. The key that --key signs with counts as trusted, within the limits
    of the trust file.
    """
    from budc.cli.generation.binding import BindRequest, bind_export
    from budc.cli.output.binding import page, record
    from budc.policies.artifact_profile import profile_of
    from budc.progress import hashing
    from budc.schema.artifact import read, seal
    from budc.schema.digest_cache import DigestCache
    from budc.schema.files import write_atomic

    options = BindOptions(**flags)
    signer = required_signer(options.key, options.public)
    artifact = _open(options, signer)
    path = _target(options)
    bound = bind_export(
        BindRequest(
            artifact=artifact,
            export=options.export,
            profile=profile_of(artifact.document, options.model),
            weights=options.weights,
            samples=options.samples,
            device=options.device,
            revision=options.revision,
            digests=DigestCache.of_user(watch=hashing, rehash=options.rehash),
        )
    )
    write_atomic(path, seal(bound.document, signer))
    written = read(path)
    click.echo(
        json.dumps(record(written, bound.variant, bound.parity), indent=1)
        if options.as_json
        else page(written, bound.variant, bound.parity)
    )


def _open(options: BindOptions, signer: Signer) -> Artifact:
    """Open the policy, which must be believed, and check that the new revision is a later one."""
    from budc.cli.trust_store import load_trust, open_trusted, with_keys
    from budc.schema.signers import public_of

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
