"""The weight file of one or more graphs: every tensor once, whichever graphs and names use it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO

import onnx_ir as ir

INLINE = 1024
"""Bytes up to which a tensor stays in its graph: shapes and scalars, which runtimes want to see early."""

ALIGNMENT = 4096
"""Offsets are multiples of a page, so that runtimes can map the file (ONNX, external data)."""


class WeightFile:
    """Writes tensors to an open file, one after another, and equal ones once.

    `name` is the file's name as graphs in the same folder refer to it.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name
        self._places: dict[tuple[str, bytes], tuple[int, int]] = {}
        self._end = 0

    def take(self, model: ir.Model) -> None:
        """Move the initialisers of `model` that are over `INLINE` bytes here; it then refers to them."""
        for value in model.graph.initializers.values():
            tensor = value.const_value
            assert tensor is not None
            assert value.name is not None
            if tensor.nbytes <= INLINE:
                continue
            offset, length = self._place(tensor)
            value.const_value = ir.ExternalTensor(
                self._name,
                offset,
                length,
                tensor.dtype,
                shape=ir.Shape(tensor.shape.numpy()),
                name=value.name,
            )

    def _place(self, tensor: ir.TensorProtocol) -> tuple[int, int]:
        content = tensor.tobytes()
        # Only the bytes count: a view of the same values in another shape shares their place.
        key = (tensor.dtype.name, hashlib.sha256(content).digest())
        if key not in self._places:
            offset = -(-self._end // ALIGNMENT) * ALIGNMENT
            self._file.seek(offset)
            self._file.write(content)
            self._places[key] = (offset, len(content))
            self._end = offset + len(content)
        return self._places[key]


def save_graph(model: ir.Model, path: Path) -> None:
    """Write a graph whose weights were taken by a `WeightFile`."""
    ir.save(model, path)
