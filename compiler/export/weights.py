"""Weight files of graphs: every tensor once, whichever graphs use it under whatever names."""

from __future__ import annotations

import hashlib
from typing import BinaryIO

import onnx_ir as ir

INLINE = 1024
"""Tensors of at most this many bytes stay in the graph: shapes and scalars, which runtimes optimise with."""

ALIGNMENT = 4096
"""Offsets are multiples of a page, so that runtimes can map the file (ONNX, external data)."""


class WeightWriter:
    """Writes the weights of graphs to an open file, and equal tensors once.

    `name` is the file's name, by which graphs in the same folder refer to it.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name
        self._ranges: dict[tuple[str, bytes], tuple[int, int]] = {}
        """(dtype, sha256) → (offset, length)."""
        self._end = 0

    def externalize(self, model: ir.Model) -> None:
        """Write the initializers of `model` that are over `INLINE` bytes, and let it refer to them."""
        for value in model.graph.initializers.values():
            tensor = value.const_value
            assert tensor is not None
            assert value.name is not None
            if tensor.nbytes <= INLINE:
                continue
            offset, length = self._write(tensor)
            value.const_value = ir.ExternalTensor(
                self._name,
                offset,
                length,
                tensor.dtype,
                shape=ir.Shape(tensor.shape.numpy()),
                name=value.name,
            )

    def _write(self, tensor: ir.TensorProtocol) -> tuple[int, int]:
        content = tensor.tobytes()
        # The shape does not matter: the same values in another shape share one range.
        key = (tensor.dtype.name, hashlib.sha256(content).digest())
        if key not in self._ranges:
            offset = -(-self._end // ALIGNMENT) * ALIGNMENT
            self._file.seek(offset)
            self._file.write(content)
            self._ranges[key] = (offset, len(content))
            self._end = offset + len(content)
        return self._ranges[key]
