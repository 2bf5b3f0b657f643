"""Tensors of a graph, and those whose data lies outside of it, in a weight file."""

import math
import os
import posixpath
import re
from collections.abc import Iterator, Mapping

from onnx import GraphProto, TensorProto

from budc.runtimes.exported.manifest import Manifest
from budc.schema.errors import UnsafeWeights
from budc.schema.folder import resolve

_KEYS = {"location", "offset", "length"}
"""The fields that may describe external data."""
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
"""Types of weights → bytes of one element."""


def tensors_of(graph: GraphProto, file: str) -> Iterator[TensorProto]:
    """Yield the tensors of a graph: initializers and attributes of nodes.

    Raises:
        UnsafeWeights: it has sparse tensors.
    """
    if graph.sparse_initializer:
        raise unsafe_export(f"{file} holds sparse tensors")
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
                raise unsafe_export(f"{file} holds sparse tensors")
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def check_external_tensor(
    folder: str | os.PathLike[str], manifest: Manifest, graph: str, tensor: TensorProto
) -> tuple[str, int]:
    """Return the weight file of an external tensor, relative to the folder, and the offset where the tensor ends.

    Raises:
        UnsafeWeights: the file lies outside of the folder or is not listed, or the tensor lies partly outside of
            the file, or has another length than its type and shape need.
    """
    subject = f"{graph}: the tensor {tensor.name!r}"
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if len(entries) != len(tensor.external_data) or not {"location", "length"} <= entries.keys() <= _KEYS:
        raise unsafe_export(f"{subject} is described by {[entry.key for entry in tensor.external_data]}")
    file = posixpath.join(posixpath.dirname(graph), entries["location"])
    try:
        size = resolve(folder, file).stat().st_size
    except UnsafeWeights as error:
        raise unsafe_export(f"{subject} lies outside of the export: {error}") from error
    if file not in manifest.files:
        raise unsafe_export(f"{subject} lies in {file}, which the manifest does not list")
    offset, length = _number(entries.get("offset", "0")), _number(entries["length"])
    width = _WIDTHS.get(tensor.data_type)
    needed = None if width is None or min(tensor.dims, default=0) < 0 else width * math.prod(tensor.dims)
    if offset is None or length is None or length != needed:
        raise unsafe_export(f"{subject} is {length} bytes at {offset} of {file}, its shape needs {needed}")
    if offset + length > size:
        raise unsafe_export(f"{subject} ends at {offset + length} of {file}, which has only {size} bytes")
    return file, offset + length


def unsafe_export(message: str) -> UnsafeWeights:
    """Return the error for an export folder that is refused."""
    return UnsafeWeights(message, remedy="export the model again with `budc export onnx`")


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None
