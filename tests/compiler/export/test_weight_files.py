"""Weight files: every tensor once."""

import io
from typing import Any

import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

import numpy as np  # noqa: E402
import onnx_ir as ir  # noqa: E402

from budc.compiler.export.graphs import OPSET  # noqa: E402
from budc.compiler.export.weights import ALIGNMENT, INLINE, WeightWriter  # noqa: E402


def model_with(**tensors: Any) -> ir.Model:
    values = [ir.Value(name=name, const_value=ir.tensor(array, name=name)) for name, array in tensors.items()]
    graph = ir.Graph([], [], nodes=[], initializers=values, opset_imports={"": OPSET})
    return ir.Model(graph, ir_version=10)


def test_equal_tensors_are_written_once_whichever_graph_and_shape_they_have() -> None:
    a, b = np.arange(1000, dtype=np.float32), np.arange(1000, dtype=np.float32) + 1
    first, second = model_with(a=a, b=b), model_with(c=a.reshape(10, 100), small=a[:4])
    file = io.BytesIO()
    weights = WeightWriter(file, "weights.onnx.data")
    weights.externalize(first)
    weights.externalize(second)
    assert len(file.getvalue()) == ALIGNMENT + a.nbytes
    shared = second.graph.initializers["c"].const_value
    assert isinstance(shared, ir.ExternalTensor)
    assert (shared.offset, shared.length, list(shared.shape)) == (0, a.nbytes, [10, 100])
    moved = first.graph.initializers["b"].const_value
    assert isinstance(moved, ir.ExternalTensor)
    assert moved.offset == ALIGNMENT
    assert file.getvalue()[ALIGNMENT:] == b.tobytes()
    assert not isinstance(second.graph.initializers["small"].const_value, ir.ExternalTensor)
    assert a[:4].nbytes <= INLINE


def test_equal_bytes_of_another_type_are_another_tensor() -> None:
    a = np.zeros(1000, np.float32)
    file = io.BytesIO()
    WeightWriter(file, "weights.onnx.data").externalize(model_with(a=a, b=a.view(np.int32)))
    assert len(file.getvalue()) == ALIGNMENT + a.nbytes
