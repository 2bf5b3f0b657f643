"""Tensors at fixed addresses of a device, and sessions that are bound to them once and then only run.

Only `DeviceTensor.write` and `DeviceTensor.read` copy between host and device.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from budc.runtimes.onnxruntime.provider import Provider


@dataclass(frozen=True)
class DeviceTensor:
    """A tensor in the memory of a provider's device, or some rows of one."""

    owner: ort.OrtValue
    """The whole tensor."""
    device: str
    dtype: "np.dtype[Any]"
    shape: tuple[int, ...]
    address: int

    @classmethod
    def empty(cls, provider: Provider, dtype: str, shape: Sequence[int]) -> "DeviceTensor":
        """Allocate a tensor; its content is undefined."""
        element = np.dtype(dtype)
        value = ort.OrtValue.ortvalue_from_shape_and_type(list(shape), element.type, provider.device, 0)
        return cls(value, provider.device, element, tuple(shape), value.data_ptr())

    @classmethod
    def of(cls, provider: Provider, array: NDArray[Any]) -> "DeviceTensor":
        """Allocate a tensor and copy `array` into it."""
        tensor = cls.empty(provider, array.dtype.name, array.shape)
        tensor.write(array)
        return tensor

    def rows(self, first: int, last: int) -> "DeviceTensor":
        """Return rows first..last-1 along the first axis: the same memory, nothing is copied."""
        stride = int(np.prod(self.shape[1:])) * self.dtype.itemsize
        shape = (last - first, *self.shape[1:])
        return DeviceTensor(self.owner, self.device, self.dtype, shape, self.address + first * stride)

    def write(self, array: NDArray[Any]) -> None:
        """Copy an array of this shape from the host into the whole tensor."""
        assert array.shape == self.shape
        self.owner.update_inplace(np.ascontiguousarray(array, self.dtype))

    def read(self) -> NDArray[Any]:
        """Return a copy of these rows on the host."""
        first = (self.address - self.owner.data_ptr()) // self.dtype.itemsize
        values = self.owner.numpy().reshape(-1)[first : first + int(np.prod(self.shape))]
        return np.array(values.reshape(self.shape), copy=True)


class BoundSession:
    """A session with its inputs and outputs at fixed addresses.

    Inputs that the graph does not have are ignored. `cuda_graph` is the number of the CUDA graph that the first
    run records and later runs replay; each set of addresses needs its own. 0 records none.
    `run_turn` is that of the provider.
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        inputs: Mapping[str, DeviceTensor],
        outputs: Mapping[str, DeviceTensor],
        cuda_graph: int = 0,
        run_turn: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.cuda_graph = cuda_graph
        self._session = session
        self._run_turn = run_turn
        self._tensors = (dict(inputs), dict(outputs))  # keeps their memory alive
        self._binding = session.io_binding()
        graph_inputs = {value.name for value in session.get_inputs()}
        for name, tensor in inputs.items():
            if name in graph_inputs:
                self._binding.bind_input(name, *_location(tensor))
        for name, tensor in outputs.items():
            self._binding.bind_output(name, *_location(tensor))
        self._options: ort.RunOptions | None = None
        if cuda_graph:
            self._options = ort.RunOptions()
            self._options.add_run_config_entry("gpu_graph_id", str(cuda_graph))

    def run(self) -> None:
        """Run; return when the outputs are written."""
        with self._run_turn():
            self._session.run_with_iobinding(self._binding, self._options)


def _location(tensor: DeviceTensor) -> tuple[str, int, Any, list[int], int]:
    return tensor.device, 0, tensor.dtype.type, list(tensor.shape), tensor.address
