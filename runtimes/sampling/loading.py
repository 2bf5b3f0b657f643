"""Errors of the libraries that load models, as one of ours that names the folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from budc.schema.errors import WeightsMissing


@contextmanager
def loading(folder: Path) -> Iterator[None]:
    """Load something from `folder` in the with-block.

    Raises:
        WeightsMissing: diffusers, transformers or safetensors could not load it; the message has their reason.
    """
    try:
        yield
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise WeightsMissing(f"{folder}: cannot be loaded: {reason[0]}") from error
