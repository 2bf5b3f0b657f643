"""Checks of the graphs of an export folder, which are read without their weights.

1. A graph file is at most `GRAPH_LIMIT` bytes and parses. It uses operators of the ONNX standard alone: no other
   operator domains, no functions, no nested graphs.
2. Its inputs and outputs are exactly those of the manifest.
3. The data of an external tensor lies in the export folder, in a file that the manifest lists, under a plain name, and
   no link leads out. It is as long as type and shape need, and ends inside the file.
4. A weight file ends where its last tensor ends.
"""

import os
from collections.abc import Mapping, Sequence

import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto, ValueInfoProto

from budc.runtimes.exported.external_data import check_external_tensor, tensors_of, unsafe_export
from budc.runtimes.exported.manifest import Manifest
from budc.runtimes.exported.signatures import TensorSpec
from budc.schema.errors import ArtifactError
from budc.schema.files import read_limited
from budc.schema.folder import resolve

GRAPH_LIMIT = 64 << 20
"""Bytes of a graph file, without the weights outside of it."""

_DTYPES: Mapping[int, str] = {
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "float16",
    TensorProto.INT64: "int64",
}


def check_graphs(folder: str | os.PathLike[str], manifest: Manifest) -> None:
    """Check the graphs of an export folder by the rules of this module.

    Raises:
        UnsafeWeights: a rule is broken; the message names the file.
    """
    ends: dict[str, int] = {}
    for graph in manifest.graphs.values():
        model = _read_graph(folder, graph.file)
        _check_operators(model, graph.file, manifest.opset)
        _check_signature(model.graph.input, graph.inputs, graph.file, "input")
        _check_signature(model.graph.output, graph.outputs, graph.file, "output")
        for tensor in tensors_of(model.graph, graph.file):
            if tensor.data_location == TensorProto.EXTERNAL:
                file, end = check_external_tensor(folder, manifest, graph.file, tensor)
                ends[file] = max(ends.get(file, 0), end)
    for file, end in ends.items():
        size = resolve(folder, file).stat().st_size
        if size != end:
            raise unsafe_export(f"{file} has {size} bytes, but the last tensor in it ends at {end}")


def _read_graph(folder: str | os.PathLike[str], file: str) -> ModelProto:
    try:
        data = read_limited(resolve(folder, file), GRAPH_LIMIT)
    except ArtifactError as error:
        raise unsafe_export(f"{file} cannot be read: {error}") from error
    try:
        return onnx.load_model_from_string(data)
    except DecodeError as error:
        raise unsafe_export(f"{file} is not an ONNX graph: {error}") from error


def _check_operators(model: ModelProto, file: str, opset: int) -> None:
    domains = [(entry.domain, entry.version) for entry in model.opset_import]
    if domains != [("", opset)]:
        raise unsafe_export(
            f"{file} uses the operators of {domains}, only standard ONNX of opset {opset} is run"
        )
    if model.functions or model.training_info:
        raise unsafe_export(f"{file} defines functions or training steps")
    for node in model.graph.node:
        try:
            onnx.defs.get_schema(node.op_type, opset, node.domain)
        except onnx.defs.SchemaError:
            standard = False
        else:
            standard = node.domain == ""
        if not standard:
            name = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
            raise unsafe_export(
                f"{file} uses the operator {name}, only standard ONNX of opset {opset} is run"
            )
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise unsafe_export(f"{file} nests a graph in {node.op_type}")


def _check_signature(
    values: Sequence[ValueInfoProto], expected: Sequence[TensorSpec], file: str, side: str
) -> None:
    """Check the inputs or outputs of a graph, as `side` says, against those of the manifest."""
    names, expected_names = [value.name for value in values], [spec.name for spec in expected]
    for name in names:
        # A weight that is an input as well is only a default, which a caller could replace.
        if name not in expected_names:
            raise unsafe_export(f"{file} has an unexpected {side} {name!r}")
    if names != expected_names:
        raise unsafe_export(f"{file} has {side}s {names}, the manifest says {expected_names}")
    for value, spec in zip(values, expected, strict=True):
        tensor = value.type.tensor_type
        shape = [extent.dim_value if extent.HasField("dim_value") else None for extent in tensor.shape.dim]
        dtype = _DTYPES.get(tensor.elem_type, str(tensor.elem_type))
        if dtype != spec.dtype or shape != list(spec.shape):
            raise unsafe_export(
                f"{file}: {side} {spec.name} is {dtype} {shape}, "
                f"the manifest says {spec.dtype} {list(spec.shape)}"
            )
