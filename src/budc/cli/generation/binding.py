"""`budc bind`: the policy runs on the original and on its export, and gains the export as a variant if both agree."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from budc.cli.dependencies import MODEL_PACKAGES, ONNX_PACKAGES, model_libraries, require
from budc.progress import stage
from budc.schema.printable import printable

if TYPE_CHECKING:
    from budc.compiler.evaluation.parity import Parity
    from budc.policies.profile import ModelProfile
    from budc.schema.artifact import Artifact
    from budc.schema.digest_cache import DigestCache
    from budc.schema.policy import PolicyDocument, Variant


@dataclass(frozen=True)
class BindRequest:
    """What to bind. `export` is the folder of the export, `weights` that of the original, by default the profile's."""

    artifact: Artifact
    export: Path
    profile: ModelProfile
    weights: Path | None
    samples: int
    revision: int | None
    digests: DigestCache
    device: str | None = None


class Bound(NamedTuple):
    """The new document, the variant that it gained, and how both forms agree."""

    document: PolicyDocument
    variant: Variant
    parity: Parity


def bind_export(request: BindRequest) -> Bound:
    """Compare both forms of the model under the policy and return the policy with one variant more.

    Raises:
        MissingExtra: a package of either form is not installed.
        UsageError: there is no such device.
        BudcError: the original is another model, the export cannot be used, or the two do not agree.
    """
    require(*MODEL_PACKAGES, *ONNX_PACKAGES, extra="export")
    document = request.artifact.document
    weights = find_original(document, request.profile, request.weights, request.digests)
    with model_libraries():
        from msgspec.structs import replace

        from budc.cli.generation.converted import ConvertedExport
        from budc.compiler.bind import rebound
        from budc.compiler.evaluation.parity import check_parity, measure_parity
        from budc.compiler.models.model import load_model
        from budc.policies.deployment import calibrated
        from budc.runtimes.admission.additions import BIND, check_additions
        from budc.runtimes.exported.folder import describe_export
        from budc.runtimes.sampling.devices import find_device

        device = find_device(request.device)
        check_additions(document, BIND)
        # In float32 whatever the policy was measured in: rounding would hide what a conversion changed.
        profile = replace(calibrated(request.profile, document), dtype="float32")
        stage("verify", printable(f"the files of {request.export}"))
        variant, manifest = describe_export(request.export, sha256=request.digests)
        converted = ConvertedExport(document, variant, request.export, request.digests)
        stage("load", printable(profile.title))
        parity = measure_parity(load_model(profile, weights, device), document, converted, request.samples)
        check_parity(parity, manifest.dtype)
        return Bound(rebound(request.artifact, variant, parity, request.revision), variant, parity)


def find_original(
    document: PolicyDocument, profile: ModelProfile, weights: Path | None, digests: DigestCache
) -> Path:
    """Return the folder of the model that the policy was compiled for, whose files are checked.

    Raises:
        UnsupportedModel: a model that no export is made of.
        ModelError: the weights are missing, or others.
    """
    from msgspec.structs import replace

    from budc.compiler.models.supported import check_exportable
    from budc.policies.profile import find_weights
    from budc.runtimes.exported.manifest import MANIFEST
    from budc.runtimes.sampling.network_config import library_defaults
    from budc.schema.model_files import accepted_files

    check_exportable(profile, "bind")
    folder = find_weights(profile, weights)
    stage("hash", printable(f"the files of {folder}"))
    originals = [variant for variant in document.model.variants if MANIFEST not in variant.files]
    accepted_files(folder, replace(document.model, variants=originals), digests, library_defaults)
    return folder
