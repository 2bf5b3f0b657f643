"""Evaluate a policy on a model folder, from Python: what `budc evaluate` does.

evaluated = budc.evaluate_folder("policy.budc.json", metrics="psnr,ssim", work="measured", trust="release.pub")
evaluated.save("policy.evaluation.json", key="lab.key")
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from budc.compiler.api_settings import check_execution
from budc.compiler.evaluate import evaluate
from budc.compiler.evaluate_request import EvaluateRequest
from budc.compiler.evaluated import Evaluated
from budc.option_names import python_names
from budc.progress import Report, reported
from budc.runtimes.admission.trust import Source, trusted_policy, unevaluated
from budc.runtimes.sampling.network_config import library_defaults
from budc.schema.arguments import described
from budc.schema.artifact import read, seal
from budc.schema.digest_cache import DigestCache
from budc.schema.errors import UsageError
from budc.schema.model_files import accepted_files
from budc.schema.policy import PolicyDocument
from budc.schema.trust import Trust

__all__ = ["Evaluated", "evaluate_folder"]


@python_names()
def evaluate_folder(
    policy: Source,
    *,
    # The model, and what it is measured on.
    model: str | PathLike[str] | None = None,
    weights: str | PathLike[str] | None = None,
    prompts: str | PathLike[str] | None = None,
    samples: int | None = None,
    calibration: str | PathLike[str] | None = None,
    calibration_size: int | None = None,
    # What is measured.
    metrics: str | None = None,
    metric_weights: str | PathLike[str] | None = None,
    no_frames: bool = False,
    keep_frames: bool = False,
    against: str | None = None,
    under: Sequence[str] = (),
    lora: Sequence[str] = (),
    repeats: int = 5,
    # Where it runs, and whom it trusts.
    seed: int = 0,
    device: str | None = None,
    offload: str = "model",
    work: str | PathLike[str] | None = None,
    trust: Trust | str | PathLike[str] | None = None,
    allow_unsigned: bool = False,
    progress: Report | None = None,
) -> Evaluated:
    """Measure a policy on a model folder: metrics of frames, rivals, other settings, latency.

    Args:
        policy: an artifact or its path.
        model, weights: as for `budc evaluate`: a profile or a folder, by default the policy's profile and its weights.
        prompts, samples, calibration, calibration_size: prompts to measure on and to fit rivals on, and how many.
        metrics, metric_weights, no_frames, keep_frames: metrics by name, the folder of their weights, and frames.
        against, under, lora, repeats: rivals, changes of the setting, the policy's adapters, timed rounds.
        seed, device, offload: of rivals that search; where it runs; "model" or "group".
        work: a folder that keeps what was measured, so that the same call resumes; by default nothing is kept.
        trust, allow_unsigned: as for `budc.apply`.
        progress: called with a pass's name, and how many of how many units are done.

    Raises:
        TrustError: nobody trusted has signed the policy.
        UsageError: an argument of another kind, or one that makes no sense for this policy.
        ModelError: the weights are missing, or are not those that the policy is for.
        CalibrationMismatch, DeviceMemory: see `budc.compiler.evaluate.evaluate`.
    """
    check_execution(seed, None, None, progress)
    given = {
        "model": model, "weights": weights, "prompts": prompts, "samples": samples, "calibration": calibration,
        "calibration_size": calibration_size, "metrics": metrics, "metric_weights": metric_weights,
        "no_frames": no_frames, "keep_frames": keep_frames, "against": against, "under": under, "lora": lora,
        "repeats": repeats, "seed": seed, "device": device, "offload": offload,
    }  # fmt: skip
    document = trusted_policy(policy, unevaluated(trust), allow_unsigned).document
    with reported(progress), tempfile.TemporaryDirectory(prefix="budc-") as temporary:
        return _evaluated(document, given | {"out": temporary if work is None else work})


def _evaluated(document: PolicyDocument, given: dict[str, Any]) -> Evaluated:
    """Measure on a folder that is the policy's."""
    plan = replace(_request(given), policies=(read(seal(document, None)),)).resolve()
    accepted_files(plan.folder, document.model, DigestCache.of_user(), library_defaults)
    (evaluated,) = evaluate(plan)
    return evaluated


def _request(given: dict[str, Any]) -> EvaluateRequest:
    """Return what is asked for. Raises UsageError: an argument is of another kind."""
    kinds = get_type_hints(EvaluateRequest)
    fields: dict[str, Any] = {}
    for name, value in given.items():
        if value is None:
            continue
        plain = str(value) if isinstance(value, PathLike) else value
        try:
            fields[name] = msgspec.convert(plain, kinds[name], dec_hook=_path)
        except msgspec.ValidationError as error:
            raise UsageError(
                f"{name}: {described(value)} is of another kind: {str(error).replace(' | null', '')}",
                remedy=f"pass {name} as docs/evaluate.md says",
            ) from error
    return EvaluateRequest(policies=(), **fields)


def _path(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str) and value and "\0" not in value:
        return Path(value)
    raise TypeError(f"Expected `{kind.__name__}`, got `{type(value).__name__}`")
