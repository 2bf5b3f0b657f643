"""Device memory with a fixed address, and calls that are bound to it once and then only run.

Nothing moves between host and device but what `write` and `read` are asked for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from budc.runtimes.onnxruntime.provider import Provider


@dataclass(frozen=True)
class Buffer:
    """A tensor in the memory of a provider's device, or some rows of one."""

    owner: ort.OrtValue
    device: str
    dtype: "np.dtype[Any]"
    shape: tuple[int, ...]
    address: int

    @classmethod
    def new(cls, provider: Provider, dtype: str, shape: Sequence[int]) -> "Buffer":
        """Allocate a tensor; its content is undefined."""
        kind = np.dtype(dtype)
        value = ort.OrtValue.ortvalue_from_shape_and_type(list(shape), kind.type, provider.device, 0)
        return cls(value, provider.device, kind, tuple(shape), value.data_ptr())

    @classmethod
    def of(cls, provider: Provider, array: NDArray[Any]) -> "Buffer":
        """Allocate a tensor and copy `array` into it."""
        buffer = cls.new(provider, array.dtype.name, array.shape)
        buffer.write(array)
        return buffer

    def rows(self, first: int, last: int) -> "Buffer":
        """Return rows first..last-1 along the first axis: the same memory, nothing is copied."""
        stride = int(np.prod(self.shape[1:])) * self.dtype.itemsize
        shape = (last - first, *self.shape[1:])
        return Buffer(self.owner, self.device, self.dtype, shape, self.address + first * stride)

    def write(self, array: NDArray[Any]) -> None:
        """Copy an array of this shape from the host into the whole tensor."""
        assert array.shape == self.shape
        self.owner.update_inplace(np.ascontiguousarray(array, self.dtype))

    def read(self) -> NDArray[Any]:
        """Return a copy on the host, of these rows alone where they are some of a tensor's."""
        first = (self.address - self.owner.data_ptr()) // self.dtype.itemsize
        values = self.owner.numpy().reshape(-1)[first : first + int(np.prod(self.shape))]
        return np.array(values.reshape(self.shape), copy=True)


class Call:
    """One session with its inputs and outputs in fixed memory.

    Each Call of a captured session has an address set, and so a CUDA graph, of its own (`graph`).
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        inputs: Mapping[str, Buffer],
        outputs: Mapping[str, Buffer],
        graph: int = 0,
    ) -> None:
        self._session = session
        self._held = (dict(inputs), dict(outputs))
        self._binding = session.io_binding()
        taken = {value.name for value in session.get_inputs()}
        for name, buffer in inputs.items():
            # An input that the model does not use has been left out of its graph.
            if name in taken:
                self._binding.bind_input(name, *_place(buffer))
        for name, buffer in outputs.items():
            self._binding.bind_output(name, *_place(buffer))
        self._options: ort.RunOptions | None = None
        if graph:
            self._options = ort.RunOptions()
            self._options.add_run_config_entry("gpu_graph_id", str(graph))

    def __call__(self) -> None:
        """Run; returns when the outputs are there."""
        self._session.run_with_iobinding(self._binding, self._options)


def _place(buffer: Buffer) -> tuple[str, int, Any, list[int], int]:
    return buffer.device, 0, buffer.dtype.type, list(buffer.shape), buffer.address
