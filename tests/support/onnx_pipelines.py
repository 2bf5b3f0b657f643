"""The ONNX pipeline as tests open it, and policies that reuse velocities."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from budc.runtimes.onnxruntime.pipeline import (
    OnnxPipeline,
    UnsignedWarning,
    choose_provider,
    load,
)
from budc.runtimes.testing import GOLDEN
from budc.schema.policy import PolicyDocument

PROMPTS = ["a red circle", "a big blue box drifts up"]


def opened(policies: PolicyDocument | Sequence[PolicyDocument], folder: Path, **options: Any) -> OnnxPipeline:
    """Open an export on the CPU, for policies that nobody signed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnsignedWarning)
        return load(policies, folder, allow_unsigned=True, provider=choose_provider("cpu", 1), **options)


def reusing_velocities(name: str, document: PolicyDocument) -> PolicyDocument:
    """Return a golden policy with the velocity in place of the trunk residual."""
    document = GOLDEN[name].document(document)
    return msgspec.structs.replace(
        document, policy=msgspec.structs.replace(document.policy, payload="velocity")
    )
