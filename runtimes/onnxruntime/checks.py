"""Checks: a policy held against the export folder that it is to run on. Nothing is opened before they pass."""

import json
from pathlib import Path
from typing import Any

from budc.policies.profile import load_profile
from budc.runtimes.admission.settings import SettingsCheck
from budc.runtimes.exported.folder import describe_export, verify_export
from budc.runtimes.exported.manifest import MANIFEST, Manifest
from budc.runtimes.onnxruntime.branches import guided_branches
from budc.schema import folder as model_folder
from budc.schema.digest_cache import DigestCache
from budc.schema.digests import find_variant
from budc.schema.errors import (
    CalibrationMismatch,
    UnsafeWeights,
    UnsupportedModel,
    UsageError,
    WeightsMismatch,
    WeightsMissing,
)
from budc.schema.policy import PolicyDocument


def verify_folder(
    folder: Path,
    document: PolicyDocument,
    calibration: SettingsCheck,
    *,
    digests: DigestCache | None = None,
) -> Manifest:
    """Return the manifest of an export whose files are, one by one, those of a variant of the policy.

    Where uncalibrated runs are allowed, an export that the policy does not list passes with a warning if its
    files are those of its own manifest. `digests` remembers what was hashed before, default the user's cache.

    Raises:
        WeightsMissing, WeightsMismatch: the policy lists no export, or another one.
        UnsafeWeights: a file is not opened: links out of the folder, malformed graphs, custom operators.
    """
    digests = digests or DigestCache.of_user()
    exports = [variant for variant in document.model.variants if MANIFEST in variant.files]
    try:
        if not exports:
            raise WeightsMismatch(
                f"{document.name} lists no ONNX export among its variants",
                remedy="budc bind POLICY --variant DIR --key KEY, which checks an export and signs the policy again",
            )
        variant = find_variant(folder, exports, sha256=digests)
    except (WeightsMissing, WeightsMismatch) as error:
        if not calibration.allow:
            raise
        variant, _ = describe_export(folder, sha256=digests)
        calibration.differ("weights", str(error))
    return verify_export(folder, variant, sha256=digests)


def check_document(document: PolicyDocument, manifest: Manifest, calibration: SettingsCheck) -> None:
    """Judge the class of the model and the shapes that the graphs were exported for.

    Raises:
        UnsupportedModel: the export is of another kind of denoiser, or the policy has several.
        CalibrationMismatch: a shape, the text length, the pipeline or a guidance branch is another.
    """
    names = {denoiser.name: denoiser.class_name for denoiser in document.model.denoisers}
    if names != {"transformer": manifest.denoiser_class}:
        raise UnsupportedModel(
            f"the policy is for {', '.join(f'{name} {kind}' for name, kind in names.items())}, "
            f"the export has a {manifest.denoiser_class}",
            remedy="export the model that the policy was compiled for; one of several denoisers cannot be exported",
        )
    calibration.require("pipeline", document.model.pipeline_class, manifest.pipeline_class)
    for field in ("frames", "height", "width"):
        wanted, actual = getattr(document.shape, field), getattr(manifest.shape, field)
        calibration.require(field, wanted, actual, "export the model again for the calibrated shape")
    tokens = document.shape.text_tokens
    if tokens is not None:
        calibration.require("text tokens", tokens, manifest.text.tokens)
    if manifest.guidance is not None:
        remedy = "export the model again with the profile's guidance"
        calibration.require("guidance", float(document.sampler.guidance), manifest.guidance, remedy)
    policed = {name for branch in document.policy.branches for name in branch.names}
    for name in guided_branches(document, manifest.branches):
        if name not in policed or name not in manifest.branches:
            raise CalibrationMismatch(
                f"branch: this run has {name}, the policy has {', '.join(sorted(policed))} "
                f"and the export {', '.join(manifest.branches)}",
                remedy="use the pipeline and the guidance that the policy was compiled for",
            )


def check_scheduler(
    document: PolicyDocument, folder: Path, manifest: Manifest, calibration: SettingsCheck
) -> None:
    """Judge the export's own scheduler, as the policy's profile deploys it, against the policy's.

    Raises:
        CalibrationMismatch: it is of another class, or a setting is another one.
        UnsafeWeights: its configuration cannot be read.
    """
    deployed, settings = _deployed_scheduler(document, folder, manifest)
    sampler = document.sampler
    calibration.require("scheduler", sampler.scheduler, deployed)
    if sampler.scheduler == deployed:
        differences = {
            name: (value, settings[name])
            for name, value in sampler.config.items()
            if name in settings and settings[name] != value
        }
        remedy = "use the export of the model that the policy was compiled for"
        calibration.require_settings("scheduler", differences, remedy)


def _deployed_scheduler(
    document: PolicyDocument, folder: Path, manifest: Manifest
) -> tuple[str, dict[str, Any]]:
    try:
        path = model_folder.resolve(folder, manifest.scheduler)
        settings = json.loads(path.read_text(encoding="utf-8"))
        name = str(settings["_class_name"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnsafeWeights(f"{manifest.scheduler}: not a scheduler's configuration: {error}") from error
    try:
        profile = load_profile(document.model.profile)
    except UsageError:
        # A policy for a model of one's own: its scheduler runs as its folder says.
        return name, settings
    return profile.scheduler, settings | profile.scheduler_config
