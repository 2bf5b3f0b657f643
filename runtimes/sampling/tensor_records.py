"""The record of a tensor in memory, as the tensor root of files has it."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from budc.schema.digests import value_record

_DTYPES: Mapping[torch.dtype, str] = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""The name of a dtype in safetensors headers, and so in the tensor root."""


def tensor_record(tensor: Tensor) -> bytes:
    """Return the record of a tensor: dtype, shape and the sha256 of its values. They must be in memory."""
    raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    dtype = _DTYPES.get(tensor.dtype, str(tensor.dtype))
    return value_record(dtype, tensor.shape, hashlib.sha256(raw.data).digest())
