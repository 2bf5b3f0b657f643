"""diffusers: run a pipeline under a policy.

    applied_policy = budc.apply(pipe, "policy.budc.json", trust="release.pub")
    video = pipe(prompt, num_inference_steps=50).frames       # as always
    applied_policy.remove()

    with budc.applied(pipe, "policy.budc.json", trust="release.pub"):
        video = pipe(prompt, num_inference_steps=50).frames

Only this pipeline instance changes, and `remove` puts it back exactly. A copy of the pipeline has no policy. Settings
other than the calibrated ones are refused; `allow_uncalibrated=True` runs them with a warning.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

from budc.runtimes.admission.held_policies import held_policies
from budc.runtimes.admission.settings import SettingsCheck
from budc.runtimes.admission.trust import Source
from budc.schema.arguments import path_argument
from budc.schema.digest_cache import DigestCache
from budc.schema.errors import MissingExtra, UnsupportedModel
from budc.schema.installation import install
from budc.schema.policy import PolicyDocument
from budc.schema.trust import Trust

try:
    from budc.runtimes.diffusers.adapters import AdapterCheck
    from budc.runtimes.diffusers.applied import AppliedPolicy
    from budc.runtimes.diffusers.checks import check_additions_of, check_schedules
    from budc.runtimes.diffusers.denoiser import unwrapped
    from budc.runtimes.diffusers.own_layers import OwnLayers
    from budc.runtimes.diffusers.precision import check_weights
    from budc.runtimes.diffusers.weights import verify_model
except ModuleNotFoundError as missing:
    raise MissingExtra(
        f"running a pipeline needs {missing.name}, which is not installed (extra budc[torch])",
        remedy=install("torch"),
    ) from missing

DENOISERS = ("transformer", "transformer_2")
"""Components of a pipeline that denoise, in the order in which they run."""

__all__ = ["AppliedPolicy", "applied", "apply"]


def apply(
    pipe: Any,
    artifact: Source | Sequence[Source],
    *,
    trust: Trust | str | PathLike[str] | None = None,
    allow_unsigned: bool = False,
    allow_uncalibrated: bool = False,
    weights_dir: str | PathLike[str] | None = None,
    digests: DigestCache | None = None,
) -> AppliedPolicy:
    """Apply a policy to a diffusers pipeline instance; return what removes it.

    Args:
        pipe: the pipeline.
        artifact: the path of a `.budc.json` file, or what `open_artifact` returned for one; a bare `PolicyDocument`
            counts as unsigned. A list holds policies of several budgets for one model: the first is in effect, and
            `AppliedPolicy.use` chooses between runs.
        trust: whose signature is trusted: a `Trust`, or the path of one public key.
        allow_unsigned: run what nobody signed, with an `UnsignedWarning`.
        allow_uncalibrated: run other settings or weights than the calibrated ones, with an `UncalibratedWarning`.
        weights_dir: the model folder, whose files are verified; by default the folder that each transformer was
            loaded from, and where there is none the weights in memory.
        digests: caches the digests of the model's files by their times; the user's cache by default.

    Raises:
        UsageError: an argument of another kind, or policies for several models, or two of one budget.
        TrustError: nobody trusted has signed the artifact, it is denied, or it has expired.
        ArtifactError: it is not a valid policy, or uses what this runtime cannot run.
        ModelError: the pipeline's model is another one, or of a kind that is not supported.
        CalibrationMismatch: the sampler, its split between denoisers, the dtype or the adapters are not the
            calibrated ones.
        CacheConflict: a policy or another cache is on a transformer already.
    """
    held = held_policies(artifact, trust, allow_unsigned)
    settings = SettingsCheck(allow_uncalibrated)
    documents = [policy.document for policy in held.values()]
    document = documents[0]
    check_additions_of(documents, pipe)
    _check_pipeline(pipe, document, settings)
    folder = None
    if weights_dir is not None:
        folder = path_argument(weights_dir, "weights_dir", "pass the model folder, or None")
    _check_weights(pipe, document, settings, folder, digests)
    check_schedules(documents, pipe, settings)
    for denoiser in document.model.denoisers:
        AdapterCheck(document, denoiser.name, unwrapped(getattr(pipe, denoiser.name)))(settings)
    applied_policy = AppliedPolicy(pipe, held, settings)
    applied_policy.install()
    return applied_policy


@contextmanager
def applied(pipe: Any, artifact: Source | Sequence[Source], **options: Any) -> Iterator[AppliedPolicy]:
    """Apply a policy for the length of a with-block; `options` are those of `apply`."""
    applied_policy = apply(pipe, artifact, **options)
    try:
        yield applied_policy
    finally:
        applied_policy.remove()


def _check_weights(
    pipe: Any,
    document: PolicyDocument,
    settings: SettingsCheck,
    folder: Path | None,
    digests: DigestCache | None,
) -> None:
    """Check the weights of every denoiser, and their precision. Raises BudcError, see `apply`."""
    for denoiser in document.model.denoisers:
        transformer = unwrapped(getattr(pipe, denoiser.name))
        verify_model(transformer, denoiser, document, settings, weights_dir=folder, digests=digests)
        check_weights(
            document.pipeline().shape.dtype,
            transformer,
            OwnLayers(transformer),
            settings,
            quantized=denoiser.quantization is not None,
        )


def _check_pipeline(pipe: Any, document: PolicyDocument, settings: SettingsCheck) -> None:
    model = document.model
    names = [denoiser.name for denoiser in model.denoisers]
    present = [name for name in DENOISERS if getattr(pipe, name, None) is not None]
    if names != present:
        raise UnsupportedModel(
            f"denoisers: the policy has {', '.join(names)}, the pipeline has {', '.join(present) or 'none'}",
            remedy="use the model that the policy was compiled for",
        )
    classes = [cls.__name__ for cls in type(pipe).__mro__]
    if model.pipeline_class not in classes:
        settings.require("pipeline", model.pipeline_class, classes[0])
