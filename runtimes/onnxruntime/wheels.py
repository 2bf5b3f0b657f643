"""ONNX Runtime's wheels: one for CPUs, others with a further provider, and all write to the same folder.

Beside each other the files are those of whichever was installed last, and uninstalling one removes them for both.
"""

import importlib
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution
from typing import Final

from budc.schema.errors import MissingExtra
from budc.schema.installation import install

WHEELS: Final = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino")


def installed_wheels() -> tuple[str, ...]:
    """Return the names of those that pip has installed here."""
    return tuple(name for name in WHEELS if _is_installed(name))


def check_wheels() -> None:
    """Refuse an ONNX Runtime of which one wheel's removal has left nothing but a folder. Raises MissingExtra."""
    if hasattr(importlib.import_module("onnxruntime"), "InferenceSession"):
        return
    raise MissingExtra(
        "the files of onnxruntime are gone: one of its wheels was uninstalled beside another",
        remedy=f"{uninstall(installed_wheels())}{install('onnx')}, or {install('onnx-cpu')}",
    )


def without_cuda() -> str:
    """Return why the installed ONNX Runtime may be built without CUDA; empty where a single wheel explains it."""
    wheels = installed_wheels()
    if len(wheels) < 2:
        return ""
    return f"; {' and '.join(wheels)} are both installed, and overwrite each other's files"


def uninstall(wheels: Sequence[str]) -> str:
    """Return the command that removes them, to be followed by another; empty for none."""
    return f"pip uninstall {' '.join(wheels)}, then " if wheels else ""


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True
