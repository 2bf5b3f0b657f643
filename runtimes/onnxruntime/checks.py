"""Checks of an export folder against the policy that is to run on it. No graph is opened before they pass."""

from pathlib import Path
from typing import Any

from budc.policies.profile import load_profile
from budc.runtimes.admission.additions import ONNX_RUNTIME, check_additions
from budc.runtimes.admission.settings import SettingsCheck
from budc.runtimes.exported.folder import describe_export, verify_export
from budc.runtimes.exported.manifest import MANIFEST, Manifest
from budc.runtimes.onnxruntime.branches import guided_branches
from budc.schema import canonical
from budc.schema import folder as model_folder
from budc.schema.digest_cache import DigestCache
from budc.schema.digests import find_variant
from budc.schema.errors import (
    ArtifactError,
    CalibrationMismatch,
    UnsafeWeights,
    UnsupportedModel,
    UsageError,
    WeightsMismatch,
    WeightsMissing,
)
from budc.schema.files import read_limited
from budc.schema.policy import PolicyDocument


def verify_folder(
    folder: Path,
    document: PolicyDocument,
    settings: SettingsCheck,
    *,
    digests: DigestCache | None = None,
) -> Manifest:
    """Verify every file of an export against the policy's variants, and return its manifest.

    If uncalibrated runs are allowed, an export that the policy does not list passes with a warning, provided that its
    files are those of its own manifest. `digests` is the cache of file digests, default the user's.

    Raises:
        WeightsMissing, WeightsMismatch: the policy lists no export, or not this one.
        UnsafeWeights: the folder is not safe to open: a link out of it, a malformed graph, custom operators.
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
        if not settings.allow:
            raise
        variant, _ = describe_export(folder, sha256=digests)
        settings.differ("weights", str(error))
    return verify_export(folder, variant, sha256=digests)


def check_document(document: PolicyDocument, manifest: Manifest, settings: SettingsCheck) -> None:
    """Check the class of the model, and the settings that the graphs were exported for.

    Raises:
        UnsupportedVersion: the policy uses what this runtime cannot run.
        UnsupportedModel: the export has other denoisers.
        CalibrationMismatch: pipeline, shape, text length, guidance, its negative prompt or a branch differ.
    """
    check_additions(document, ONNX_RUNTIME)
    classes = {denoiser.name: denoiser.class_name for denoiser in document.model.denoisers}
    exported = dict.fromkeys(manifest.denoisers, manifest.denoiser_class)
    if classes != exported:
        wanted, found = (
            ", ".join(f"{name} {cls}" for name, cls in each.items()) for each in (classes, exported)
        )
        raise UnsupportedModel(
            f"the policy is for {wanted}, the export has {found}",
            remedy="export the model that the policy was compiled for",
        )
    size, pipeline = manifest.shape, document.pipeline()
    shape = pipeline.shape_of(size.frames, size.height, size.width)
    settings.require("pipeline", pipeline.pipeline_class, manifest.pipeline_class)
    for field in ("frames", "height", "width"):
        expected, actual = getattr(shape, field), getattr(manifest.shape, field)
        settings.require(field, expected, actual, "export the model again for the calibrated shape")
    tokens = shape.text_tokens
    if tokens is not None:
        settings.require("text tokens", tokens, manifest.text_tokens)
    if manifest.guidance is not None:
        remedy = "export the model again with the profile's guidance"
        settings.require("guidance", float(document.sampler.guidance), manifest.guidance, remedy)
    negative = document.sampler.negative_prompt
    if negative is not None and negative.text is not None:
        remedy = f"export the model again with --negative {negative.text!r}"
        settings.require("negative prompt", repr(negative.text), repr(manifest.negative_prompt), remedy)
    policy_branches = {name for branch in document.policy.branches for name in branch.names}
    for name in guided_branches(document, manifest.branches):
        if name not in policy_branches or name not in manifest.branches:
            raise CalibrationMismatch(
                f"branch: this run has {name}, the policy has {', '.join(sorted(policy_branches))} "
                f"and the export {', '.join(manifest.branches)}",
                remedy="use the pipeline and the guidance that the policy was compiled for",
            )


def check_scheduler(
    document: PolicyDocument, folder: Path, manifest: Manifest, settings: SettingsCheck
) -> None:
    """Check the scheduler of the export, with the settings of the policy's profile, against that of the policy.

    Raises:
        CalibrationMismatch: its class or a setting differs.
        UnsafeWeights: its configuration cannot be read.
    """
    deployed, config = _deployed_scheduler(document, folder, manifest)
    sampler = document.sampler
    settings.require("scheduler", sampler.scheduler, deployed)
    if sampler.scheduler == deployed:
        differences = {
            name: (value, config[name])
            for name, value in sampler.config.items()
            if name in config and config[name] != value
        }
        remedy = "use the export of the model that the policy was compiled for"
        settings.require_settings("scheduler", differences, remedy)


def _deployed_scheduler(
    document: PolicyDocument, folder: Path, manifest: Manifest
) -> tuple[str, dict[str, Any]]:
    try:
        path = model_folder.resolve(folder, manifest.scheduler)
        config: Any = canonical.parse(read_limited(path, canonical.MAX_BYTES), what=manifest.scheduler)
        name = str(config["_class_name"])
    except (ArtifactError, KeyError, TypeError) as error:
        raise UnsafeWeights(f"{manifest.scheduler}: not a scheduler's configuration: {error}") from error
    try:
        profile = load_profile(document.pipeline().profile)
    except UsageError:
        # The policy is for the user's own model, which has no profile: the folder's scheduler is the one that runs.
        return name, config
    return profile.scheduler, config | profile.scheduler_config
