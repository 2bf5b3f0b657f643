"""The graphs of an export folder, read without their weights and held against rules.

1. A graph is at most `GRAPH_LIMIT` bytes, parses, and consists of operators of the ONNX standard alone: no operator
   domains of others, no functions, no nested graphs.
2. It is called as the manifest says, with no input or output beside.
3. Tensors outside of it lie in the same folder, in files that the manifest lists, where the name is plain and
   no link leads out; each is as long as its type and shape need, and inside its file.
4. A weight file ends where the last tensor ends.
"""

import math
import os
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence

import onnx
from google.protobuf.message import DecodeError
from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto

from budc.runtimes.exported.manifest import Manifest, TensorSpec
from budc.schema.errors import ArtifactError, UnsafeWeights
from budc.schema.files import read_limited
from budc.schema.folder import resolve

GRAPH_LIMIT = 64 << 20
"""Bytes of a graph without its weights."""

_KEYS = {"location", "offset", "length"}
"""What may be said of a tensor outside of its graph."""
_WIDTHS: Mapping[int, int] = {
    TensorProto.FLOAT: 4,
    TensorProto.FLOAT16: 2,
    TensorProto.DOUBLE: 8,
    TensorProto.INT64: 8,
    TensorProto.INT32: 4,
    TensorProto.INT8: 1,
    TensorProto.UINT8: 1,
    TensorProto.BOOL: 1,
}
"""Types of weights, and the bytes of one element."""
_DTYPES: Mapping[int, str] = {
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "float16",
    TensorProto.INT64: "int64",
}


def check_graphs(folder: str | os.PathLike[str], manifest: Manifest) -> None:
    """Check the graphs of an export folder by the rules of this module.

    Raises:
        UnsafeWeights: a rule does not hold; the message names the file.
    """
    ends: dict[str, int] = {}
    for graph in manifest.graphs.values():
        model = _read(folder, graph.file)
        _check_operators(model, graph.file, manifest.opset)
        _check_values(model.graph.input, graph.inputs, graph.file, "input")
        _check_values(model.graph.output, graph.outputs, graph.file, "output")
        for tensor in _tensors(model.graph, graph.file):
            if tensor.data_location == TensorProto.EXTERNAL:
                file, end = _check_outside(folder, manifest, graph.file, tensor)
                ends[file] = max(ends.get(file, 0), end)
    for file, end in ends.items():
        size = resolve(folder, file).stat().st_size
        if size != end:
            raise _refused(f"{file} has {size} bytes, but the last tensor in it ends at {end}")


def _read(folder: str | os.PathLike[str], file: str) -> ModelProto:
    try:
        data = read_limited(resolve(folder, file), GRAPH_LIMIT)
    except ArtifactError as error:
        raise _refused(f"{file} cannot be read: {error}") from error
    try:
        return onnx.load_model_from_string(data)
    except DecodeError as error:
        raise _refused(f"{file} is not an ONNX graph: {error}") from error


def _check_operators(model: ModelProto, file: str, opset: int) -> None:
    domains = [(entry.domain, entry.version) for entry in model.opset_import]
    if domains != [("", opset)]:
        raise _refused(f"{file} uses the operators of {domains}, only standard ONNX of opset {opset} is run")
    if model.functions or model.training_info:
        raise _refused(f"{file} brings functions or training steps of its own")
    for node in model.graph.node:
        try:
            onnx.defs.get_schema(node.op_type, opset, node.domain)
        except onnx.defs.SchemaError:
            known = False
        else:
            known = node.domain == ""
        if not known:
            name = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
            raise _refused(f"{file} uses the operator {name}, only standard ONNX of opset {opset} is run")
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise _refused(f"{file} nests a graph in {node.op_type}")


def _check_values(
    values: Sequence[ValueInfoProto], expected: Sequence[TensorSpec], file: str, what: str
) -> None:
    names, wanted = [value.name for value in values], [spec.name for spec in expected]
    for name in names:
        # A weight that is listed as an input is a default, which a caller could replace.
        if name not in wanted:
            raise _refused(f"{file} has an unexpected {what} {name!r}")
    if names != wanted:
        raise _refused(f"{file} has {what}s {names}, the manifest says {wanted}")
    for value, spec in zip(values, expected, strict=True):
        tensor = value.type.tensor_type
        shape = [extent.dim_value if extent.HasField("dim_value") else None for extent in tensor.shape.dim]
        dtype = _DTYPES.get(tensor.elem_type, str(tensor.elem_type))
        if dtype != spec.dtype or shape != list(spec.shape):
            raise _refused(
                f"{file}: {what} {spec.name} is {dtype} {shape}, "
                f"the manifest says {spec.dtype} {list(spec.shape)}"
            )


def _tensors(graph: GraphProto, file: str) -> Iterator[TensorProto]:
    if graph.sparse_initializer:
        raise _refused(f"{file} holds sparse tensors")
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
                raise _refused(f"{file} holds sparse tensors")
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _check_outside(
    folder: str | os.PathLike[str], manifest: Manifest, graph: str, tensor: TensorProto
) -> tuple[str, int]:
    """Return the file that a tensor lies in, relative to the folder, and where the tensor ends there."""
    where = f"{graph}: the tensor {tensor.name!r}"
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if len(entries) != len(tensor.external_data) or not {"location", "length"} <= entries.keys() <= _KEYS:
        raise _refused(f"{where} is described by {[entry.key for entry in tensor.external_data]}")
    file = posixpath.join(posixpath.dirname(graph), entries["location"])
    try:
        size = resolve(folder, file).stat().st_size
    except UnsafeWeights as error:
        raise _refused(f"{where} lies outside of the export: {error}") from error
    if file not in manifest.files:
        raise _refused(f"{where} lies in {file}, which the manifest does not list")
    offset, length = _number(entries.get("offset", "0")), _number(entries["length"])
    width = _WIDTHS.get(tensor.data_type)
    needed = None if width is None or min(tensor.dims, default=0) < 0 else width * math.prod(tensor.dims)
    if offset is None or length is None or length != needed:
        raise _refused(f"{where} is {length} bytes at {offset} of {file}, its shape needs {needed}")
    if offset + length > size:
        raise _refused(f"{where} ends at {offset + length} of {file}, which is cut short at {size}")
    return file, offset + length


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def _refused(message: str) -> UnsafeWeights:
    return UnsafeWeights(message, remedy="make the export anew with `budc export onnx`")
