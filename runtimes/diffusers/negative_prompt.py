"""The negative prompt that a policy was calibrated with, against the one that a run is guided away from."""

from collections.abc import Callable, Mapping, Set
from inspect import signature
from typing import Any

from budc.runtimes.admission.settings import SettingsCheck
from budc.runtimes.diffusers.conditioning_images import takes_images
from budc.schema.additions import (
    EVALUATION,
    FURTHER_SHAPES,
    IMAGES,
    NEGATIVE_PROMPT,
    NETWORK_CONFIG,
    OWN_PREDICTORS,
    OWN_SIGMAS,
    QUANTIZATION,
    SCALED_ADAPTERS,
)
from budc.schema.policy import PolicyDocument

_ARGUMENT = "negative_prompt"


def runnable_additions(pipe: Any) -> Set[str]:
    """Return what policies of format 1.1 may use on a pipeline.

    A negative prompt is one of them where a call of the pipeline or its `encode_prompt` is told which it is, and so are
    images where a call is given them.
    """
    methods = (type(pipe).__call__, getattr(pipe, "encode_prompt", None))
    checked = any(method is not None and _takes_negative(method) for method in methods)
    always = {
        NETWORK_CONFIG,
        QUANTIZATION,
        SCALED_ADAPTERS,
        FURTHER_SHAPES,
        OWN_SIGMAS,
        OWN_PREDICTORS,
        EVALUATION,
    }
    return always | ({NEGATIVE_PROMPT} if checked else set()) | ({IMAGES} if takes_images(pipe) else set())


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
