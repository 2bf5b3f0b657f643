"""What LPIPS needs, without a framework: its files, and frames that are large enough."""

from __future__ import annotations

LPIPS_FILES = ("features.safetensors", "linear.safetensors")
"""The features of a classifier, and the weights by which they are compared."""
ALEX_WEIGHTS = "features.safetensors (AlexNet of torchvision) and linear.safetensors (LPIPS v0.1, alex)"
ALEX_SIDE = 31
"""Pixels that rows and columns must have for AlexNet's poolings."""


def too_small(least: int, rows: int, columns: int) -> str:
    """Return why frames of this size are too small for a metric; empty where rows and columns are `least` or more."""
    if min(rows, columns) >= least:
        return ""
    return f"frames of {rows} × {columns} pixels are smaller than the {least} × {least} that it needs"
