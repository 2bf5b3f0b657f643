"""diffusers: run a pipeline under a policy.

    handle = apply(pipe, "policy.budc.json", trust=trust)
    video = pipe(prompt, num_inference_steps=50).frames       # as always
    handle.remove()

    with applied(pipe, "policy.budc.json", trust=trust):
        video = pipe(prompt, num_inference_steps=50).frames

Only this pipeline instance changes, and `remove` puts it back exactly. A copy of an armed pipeline is a
plain one. Settings other than the calibrated ones are refused; `allow_uncalibrated=True` runs them with a
warning.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

from budc.runtimes.admission.settings import SettingsCheck, UncalibratedWarning
from budc.runtimes.admission.trust import Source, UnsignedWarning, trusted_document
from budc.schema.digest_cache import DigestCache
from budc.schema.errors import MissingExtra, UnsupportedModel
from budc.schema.policy import PolicyDocument
from budc.schema.trust import Trust

try:
    from budc.runtimes.diffusers.applied import AppliedPolicy
    from budc.runtimes.diffusers.checks import check_adapters, check_experts, check_sampler
    from budc.runtimes.diffusers.denoiser import unwrapped
    from budc.runtimes.diffusers.weights import verify_model
except ModuleNotFoundError as missing:
    raise MissingExtra(
        f"running a pipeline needs {missing.name}, which is not installed (extra budc[torch])",
        remedy="pip install 'budc[torch]'",
    ) from missing

DENOISERS = ("transformer", "transformer_2")
"""Components of a pipeline that denoise, in the order in which they share a run."""

__all__ = ["AppliedPolicy", "UncalibratedWarning", "UnsignedWarning", "applied", "apply"]


def apply(
    pipe: Any,
    artifact: Source,
    *,
    trust: Trust | str | PathLike[str] | None = None,
    allow_unsigned: bool = False,
    allow_uncalibrated: bool = False,
    weights_dir: str | PathLike[str] | None = None,
    digests: DigestCache | None = None,
) -> AppliedPolicy:
    """Apply a policy to a diffusers pipeline instance and return the handle that removes it.

    `artifact` is the path of a `.budc.json` file, or what `open_artifact` returned for one; a bare
    `PolicyDocument` counts as unsigned. `trust` says whose signature is believed: a `Trust`, or the path of one
    public key. `weights_dir` is the model folder to check; without it the folder
    that each transformer says it was loaded from, and without that the weights in memory. `digests` remembers
    the model's files by their times; the user's cache by default.

    Raises:
        TrustError: nobody trusted has signed the artifact.
        ModelError: the pipeline's model is another one, or of a kind that is not supported.
        CalibrationMismatch: the sampler, its split between denoisers or the adapters are others than the
            calibrated ones.
        CacheConflict: a policy or another cache is on a transformer already.
    """
    document = trusted_document(artifact, trust, allow_unsigned)
    calibration = SettingsCheck(allow_uncalibrated)
    _check_pipeline(pipe, document, calibration)
    folder = Path(weights_dir) if weights_dir else None
    transformers = [unwrapped(getattr(pipe, denoiser.name)) for denoiser in document.model.denoisers]
    for denoiser, transformer in zip(document.model.denoisers, transformers, strict=True):
        verify_model(transformer, denoiser, document, calibration, weights_dir=folder, digests=digests)
    check_sampler(document, pipe.scheduler, calibration)
    check_experts(document, pipe)
    for transformer in transformers:
        check_adapters(document, transformer, calibration)
    handle = AppliedPolicy(pipe, document, calibration)
    handle.arm()
    return handle


@contextmanager
def applied(pipe: Any, artifact: Source, **options: Any) -> Iterator[AppliedPolicy]:
    """Apply a policy for the length of a with-block; `options` are those of `apply`."""
    handle = apply(pipe, artifact, **options)
    try:
        yield handle
    finally:
        handle.remove()


def _check_pipeline(pipe: Any, document: PolicyDocument, calibration: SettingsCheck) -> None:
    model = document.model
    names = [denoiser.name for denoiser in model.denoisers]
    found = [name for name in DENOISERS if getattr(pipe, name, None) is not None]
    if names != found:
        raise UnsupportedModel(
            f"denoisers: the policy has {', '.join(names)}, the pipeline has {', '.join(found) or 'none'}",
            remedy="use the model that the policy was compiled for",
        )
    classes = [cls.__name__ for cls in type(pipe).__mro__]
    if model.pipeline_class not in classes:
        calibration.require("pipeline", model.pipeline_class, classes[0])
