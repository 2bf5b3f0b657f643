"""The negative prompt that a policy was calibrated with, against the one that a run encodes."""

from collections.abc import Set
from inspect import BoundArguments, signature
from typing import Any

from budc.runtimes.admission.settings import SettingsCheck
from budc.schema.additions import EVALUATION, FURTHER_SHAPES, NEGATIVE_PROMPT
from budc.schema.policy import PolicyDocument

_ARGUMENT = "negative_prompt"


def runnable_additions(pipe: Any) -> Set[str]:
    """Return what policies of format 1.1 may use on a pipeline.

    A negative prompt is one of them where `encode_prompt` is told which it is. Others encode it as any other prompt.
    """
    encode = getattr(pipe, "encode_prompt", None)
    checked = encode is not None and _ARGUMENT in signature(encode).parameters
    return {FURTHER_SHAPES, EVALUATION, *([NEGATIVE_PROMPT] if checked else [])}


def check_negative_prompt(document: PolicyDocument, call: BoundArguments, settings: SettingsCheck) -> None:
    """Check the negative prompt of a call of `encode_prompt`. One that varied at calibration is not checked.

    Raises:
        CalibrationMismatch: it is another one, or only its embeddings are given.
    """
    expected = document.sampler.negative_prompt
    if expected is None or expected.text is None:
        return
    remedy = f"pass {_ARGUMENT}={expected.text!r}"
    if call.arguments.get(f"{_ARGUMENT}_embeds") is not None:
        settings.differ("negative prompt", "cannot be read off its embeddings", remedy)
        return
    given = call.arguments.get(_ARGUMENT) or ""
    for text in [given] if isinstance(given, str) else given:
        settings.require("negative prompt", expected.text, text, remedy)
