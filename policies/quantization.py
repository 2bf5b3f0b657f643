"""The kinds of quantisation that a policy can be compiled for, by name; known without torch.

A denoiser is loaded from files as published, then quantised. Each kind is one configuration of one library, so its name
says all that an artifact must record of it.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from budc.option_names import option
from budc.schema.errors import UsageError

FP8_STORAGE = "fp8-storage"

KINDS: Mapping[str, str] = {
    FP8_STORAGE: "weights kept in float8_e4m3fn and cast for each layer (layerwise casting of diffusers)",
    "torchao-int8-weights": "weights in 8 bits, a scale for each row (Int8WeightOnlyConfig of torchao)",
    "torchao-int8-dynamic": (
        "weights and activations in 8 bits (Int8DynamicActivationInt8WeightConfig of torchao)"
    ),
}
"""Name → what is quantised, and by what."""

TORCHAO: Mapping[str, str] = {
    "torchao-int8-weights": "Int8WeightOnlyConfig",
    "torchao-int8-dynamic": "Int8DynamicActivationInt8WeightConfig",
}
"""Kinds of torchao → the class of their configuration, at its defaults."""


def check_kind(kind: str, where: str | None = None) -> None:
    """Refuse a kind that is not known; messages call it `where`, by default the option's name.

    Raises:
        UsageError: the message suggests the nearest.
    """
    if kind in KINDS:
        return
    near = difflib.get_close_matches(kind, KINDS, n=1)
    raise UsageError(
        f"{where or option('quantize')}: no kind of quantisation is called {kind[:100]!r}",
        remedy=f"use {near[0]}" if near else f"known kinds: {', '.join(KINDS)}",
    )
