"""Parity: what a graph makes of the same inputs as the module that it was exported from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from budc.compiler.export.modules import SAMPLES, ExportModule
from budc.compiler.rollouts.metrics import relative_difference
from budc.schema.errors import ParityMismatch

GRAPH_TOLERANCE: Mapping[str, float] = {"float32": 1e-4, "float16": 2e-2}
"""Largest difference of one forward that is accepted, as a share of the largest value."""


def check_graph_parity(form: ExportModule, path: Path, dtype: str) -> float:
    """Run a form and its graph on batches of one and of several; return the largest relative difference.

    ONNX Runtime runs it on the CPU, as torch does.

    Raises:
        ParityMismatch: it is over the tolerance of `dtype`, or an output has another shape or type.
    """
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    taken = {value.name for value in session.get_inputs()}
    worst = 0.0
    for size in (1, SAMPLES):
        inputs = {name: value.numpy() for name, value in form.batch(size).items() if name in taken}
        made = session.run(None, inputs)
        for name, array, expected in zip(form.outputs, made, form.run(size), strict=True):
            found = torch.from_numpy(np.asarray(array))
            if found.shape != expected.shape or found.dtype != expected.dtype:
                raise ParityMismatch(
                    f"{path.name}: {name} is {found.dtype} {tuple(found.shape)}, "
                    f"expected {expected.dtype} {tuple(expected.shape)}"
                )
            worst = max(worst, relative_difference(found, expected))
            if worst > GRAPH_TOLERANCE[dtype]:
                raise ParityMismatch(
                    f"{path.name}: {name} differs from PyTorch's by {worst:.1e} of its largest value at batch "
                    f"{size}, at most {GRAPH_TOLERANCE[dtype]:.0e} is accepted"
                )
    return worst
