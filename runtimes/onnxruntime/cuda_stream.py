"""One CUDA stream for all sessions of a process, made through the CUDA runtime that ONNX Runtime has loaded.

A session would make a stream of its own. On a common one the forwards and updates of a loop follow each other in the
order in which they were launched (ONNX Runtime's option `user_compute_stream`). What is launched on a stream while it
records a CUDA graph becomes part of that graph, so sessions that share it take turns.
"""

import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from onnxruntime.capi import build_and_package_info

_NON_BLOCKING = 1
"""cudaStreamNonBlocking: the stream does not wait for the default stream, as in a session's own."""
_turn = threading.Lock()


@cache
def common_stream() -> int:
    """Return the address of the process's stream; 0 where the CUDA runtime cannot be asked: sessions have their own."""
    major = str(getattr(build_and_package_info, "cuda_version", "")).partition(".")[0]
    name = f"cudart64_{major}.dll" if sys.platform == "win32" else f"libcudart.so.{major}"
    try:
        runtime = ctypes.CDLL(name)
    except OSError:
        return 0
    stream = ctypes.c_void_p()
    failed = runtime.cudaStreamCreateWithFlags(ctypes.byref(stream), _NON_BLOCKING)
    return 0 if failed else stream.value or 0


@contextmanager
def turn_on(stream: int) -> Iterator[None]:
    """Hold the common stream for one run of a session; where `stream` is 0 there is nothing to hold."""
    if not stream:
        yield
        return
    with _turn:
        yield
