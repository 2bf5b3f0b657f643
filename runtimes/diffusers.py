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

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

from budc.runtimes.calibration import Calibration, UncalibratedWarning
from budc.schema.artifact import Artifact, check_age, open_artifact, verify
from budc.schema.digest_cache import DigestCache
from budc.schema.errors import MissingExtra, Unsigned, UnsupportedModel
from budc.schema.policy import PolicyDocument
from budc.schema.statement import encode_statement, policy_id
from budc.schema.trust import Trust

try:
    from budc.runtimes.checks import check_adapters, check_sampler
    from budc.runtimes.driver import Handle, unwrapped
    from budc.runtimes.identity import verify_model
except ModuleNotFoundError as missing:
    raise MissingExtra(
        f"running a pipeline needs {missing.name}, which is not installed (extra budc[torch])",
        remedy="pip install 'budc[torch]'",
    ) from missing

__all__ = ["Handle", "UncalibratedWarning", "UnsignedWarning", "applied", "apply"]

Source = str | PathLike[str] | Artifact | PolicyDocument
"""A `.budc.json` file, what was read from one, or a document that was never sealed."""


class UnsignedWarning(UserWarning):
    """A policy runs without a signature, because the user allowed it."""


def apply(
    pipe: Any,
    artifact: Source,
    *,
    trust: Trust | str | PathLike[str] | None = None,
    allow_unsigned: bool = False,
    allow_uncalibrated: bool = False,
    weights_dir: str | PathLike[str] | None = None,
    digests: DigestCache | None = None,
) -> Handle:
    """Apply a policy to a diffusers pipeline instance and return the handle that removes it.

    `artifact` is the path of a `.budc.json` file, or what `open_artifact` returned for one; a bare
    `PolicyDocument` counts as unsigned. `trust` says whose signature is believed: a `Trust`, or the path of one
    public key. `weights_dir` is the model folder to check; without it the folder
    that the transformer says it was loaded from, and without that the weights in memory. `digests` remembers
    the model's files by their times; the user's cache by default.

    Raises:
        TrustError: nobody trusted has signed the artifact.
        ModelError: the pipeline's model is another one, or of a kind that is not supported.
        CalibrationMismatch: the sampler or the adapters are others than the calibrated ones.
        CacheConflict: a policy or another cache is on the transformer already.
    """
    document = _trusted(artifact, trust, allow_unsigned)
    calibration = Calibration(allow_uncalibrated)
    _check_pipeline(pipe, document, calibration)
    transformer = unwrapped(pipe.transformer)
    folder = Path(weights_dir) if weights_dir else None
    verify_model(transformer, document, calibration, weights_dir=folder, digests=digests)
    check_sampler(document, pipe.scheduler, calibration)
    check_adapters(document, transformer, calibration)
    handle = Handle(pipe, document, calibration)
    handle.arm()
    return handle


@contextmanager
def applied(pipe: Any, artifact: Source, **options: Any) -> Iterator[Handle]:
    """Apply a policy for the length of a with-block; `options` are those of `apply`."""
    handle = apply(pipe, artifact, **options)
    try:
        yield handle
    finally:
        handle.remove()


def _trusted(
    artifact: Source, trust: Trust | str | PathLike[str] | None, allow_unsigned: bool
) -> PolicyDocument:
    if trust is not None and not isinstance(trust, Trust):
        trust = Trust.from_pem(trust)
    believed = trust or Trust(keys=())
    if isinstance(artifact, PolicyDocument):
        if not allow_unsigned:
            raise Unsigned("a bare policy document carries no signature")
        believed.check_denied(policy_id(encode_statement(artifact)))
        check_age(artifact, believed)
        _say_unsigned(artifact)
        return artifact
    if not isinstance(artifact, Artifact):
        artifact = open_artifact(artifact, believed, allow_unsigned=allow_unsigned)
    elif (artifact.signed or not allow_unsigned) and (trust or not artifact.verified_by):
        # An artifact that was merely read has been believed by nobody.
        verify(artifact, believed)
    else:
        # Believed earlier, or unsigned by permission; it may have expired since.
        believed.check_denied(artifact.policy_id)
        check_age(artifact.document, believed)
    if not artifact.signed:
        _say_unsigned(artifact.document)
    return artifact.document


def _say_unsigned(document: PolicyDocument) -> None:
    warnings.warn(f"{document.name} is not signed: nobody vouches for it", UnsignedWarning, stacklevel=4)


def _check_pipeline(pipe: Any, document: PolicyDocument, calibration: Calibration) -> None:
    model = document.model
    names = [denoiser.name for denoiser in model.denoisers]
    if names != ["transformer"] or getattr(pipe, "transformer_2", None) is not None:
        raise UnsupportedModel(
            f"one denoiser named transformer is needed on both sides; the policy has {', '.join(names)}",
            remedy="mixture-of-experts pipelines are not supported yet",
        )
    classes = [cls.__name__ for cls in type(pipe).__mro__]
    if model.pipeline_class not in classes:
        calibration.require("pipeline", model.pipeline_class, classes[0])
