"""The JSON file of a benchmark: what was called, where it ran, and the rows that it measured."""

from __future__ import annotations

import json
import platform
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch


def device_name() -> str:
    """Return the first CUDA device by name, or the CPU and torch's number of threads."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU, {torch.get_num_threads()} threads"


def save_rows(target: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows that were measured here and now."""
    result = {
        "command": shlex.join(["python", *sys.argv]),
        "device": device_name(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "rows": rows,
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(result, indent=1) + "\n")
