"""The negative prompt that a policy was calibrated with, against the one that a run is guided away from."""

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

from budc.runtimes.admission.settings import SettingsCheck
from budc.runtimes.diffusers.conditioning_images import takes_images
from budc.schema.additions import IMAGES, NEGATIVE_PROMPT
from budc.schema.policy import PolicyDocument

_ARGUMENT = "negative_prompt"


def unseen_additions(pipe: Any) -> frozenset[str]:
    """Return what policies of format 1.1 may not use on a pipeline, as a run of it does not show which is used.

    A negative prompt is shown where a call of the pipeline or its `encode_prompt` is told which it is, and images are
    where a call is given them.
    """
    methods = (type(pipe).__call__, getattr(pipe, "encode_prompt", None))
    negative = any(method is not None and _takes_negative(method) for method in methods)
    seen = {NEGATIVE_PROMPT: negative, IMAGES: takes_images(pipe)}
    return frozenset(name for name, is_seen in seen.items() if not is_seen)


def check_negative_prompt(
    document: PolicyDocument, method: Callable[..., Any], given: Mapping[str, Any], settings: SettingsCheck
) -> None:
    """Check the negative prompt of a call of the pipeline or of its `encode_prompt`.

    One that varied at calibration is not checked, nor that of a method which takes none.

    Args:
        document: the policy.
        method: what is called.
        given: its arguments by name, without those left at their defaults.
        settings: refuses a difference, or notes it.

    Raises:
        CalibrationMismatch: it is another one, or only its embeddings are given.
    """
    expected = document.sampler.negative_prompt
    if expected is None or expected.text is None or not _takes_negative(method):
        return
    remedy = f"pass {_ARGUMENT}={expected.text!r}"
    if given.get(f"{_ARGUMENT}_embeds") is not None:
        settings.differ("negative prompt", "cannot be read off its embeddings", remedy)
        return
    negative = given.get(_ARGUMENT) or ""
    for text in [negative] if isinstance(negative, str) else negative:
        settings.require("negative prompt", repr(expected.text), repr(text), remedy)


def _takes_negative(method: Callable[..., Any]) -> bool:
    return _ARGUMENT in signature(method).parameters
