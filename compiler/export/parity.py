"""Checks of an exported graph: by `onnx.checker`, and against the module that it was exported from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

from budc.compiler.export.sources import EXAMPLES, GraphSource
from budc.compiler.rollouts.metrics import relative_difference
from budc.schema.errors import ParityMismatch, UnsafeWeights
from budc.schema.foreign_error import reason_of

GRAPH_TOLERANCE: Mapping[str, float] = {"float32": 1e-4, "float16": 2e-2}
"""Largest accepted difference of one run, as a share of the largest value."""


def check_graph(path: Path) -> None:
    """Check a graph file by `onnx.checker`.

    Raises:
        UnsafeWeights: the checker refuses it.
    """
    try:
        onnx.checker.check_model(path, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise UnsafeWeights(f"{path.name}: onnx.checker refuses it: {reason_of(error)}") from error


def check_graph_parity(source: GraphSource, path: Path, dtype: str) -> float:
    """Run a module and its graph on the CPU, with one sample and with several; return the largest relative difference.

    Raises:
        ParityMismatch: the difference is over the tolerance of `dtype`, or an output has another shape or type.
    """
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    graph_inputs = {value.name for value in session.get_inputs()}
    worst = 0.0
    for size in (1, EXAMPLES):
        inputs = {name: value.numpy() for name, value in source.batch(size).items() if name in graph_inputs}
        outputs = session.run(None, inputs)
        for name, array, expected in zip(source.outputs, outputs, source.run(size), strict=True):
            actual = torch.from_numpy(np.asarray(array))
            if actual.shape != expected.shape or actual.dtype != expected.dtype:
                raise ParityMismatch(
                    f"{path.name}: {name} is {actual.dtype} {tuple(actual.shape)}, "
                    f"expected {expected.dtype} {tuple(expected.shape)}"
                )
            worst = max(worst, relative_difference(actual, expected))
            if worst > GRAPH_TOLERANCE[dtype]:
                raise ParityMismatch(
                    f"{path.name}: {name} differs from PyTorch's by {worst:.1e} of its largest value at batch "
                    f"{size}, at most {GRAPH_TOLERANCE[dtype]:.0e} is accepted"
                )
    return worst
