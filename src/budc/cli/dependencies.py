"""The optional packages of a command: refused early where one is missing, and kept quiet where they are loaded."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import logging
import os
import sys
from collections.abc import Iterator

from budc.progress import stage
from budc.schema.errors import MissingExtra
from budc.schema.installation import install

MODEL_PACKAGES = ("torch", "diffusers", "transformers", "safetensors", "numpy", "ftfy")
"""Packages that a pipeline needs. Some would be found missing only halfway through a run."""
ONNX_PACKAGES = ("onnxruntime", "onnx", "tokenizers", "numpy", "ftfy")
"""Packages that an exported model needs."""
MEDIA_PACKAGES = ("PIL", "imageio", "imageio_ffmpeg")
"""Packages that pictures and videos need; they come with either extra."""
RESUMES = "run the same command again to resume"
"""What is said of a command that goes on where it was stopped."""
OFFLINE = "HF_HUB_OFFLINE"
REPORT_PACKAGES = ("matplotlib", "jinja2")
"""Packages that a report is drawn and written with."""
NEW_OBJECTS = 50_000
"""How many new objects make the garbage collector look.

Model libraries make hundreds of thousands as they are imported, and all stay: with its usual 700 the collector looks at
them over and over.
"""
_OPTIONAL = {*MODEL_PACKAGES, *ONNX_PACKAGES, *MEDIA_PACKAGES, "accelerate", "huggingface_hub"}


class Interrupted(Exception):  # noqa: N818
    """The user stopped a command that says what that means; the text follows "interrupted"."""


def missing_extra(error: ModuleNotFoundError) -> MissingExtra | None:
    """Return the refusal for an optional package that is not there, or None if `error` is about another."""
    name = (error.name or "").partition(".")[0]
    return _refusal(name) if name in _OPTIONAL else None


def require(*packages: str, extra: str = "torch") -> None:
    """Check, without importing anything, that packages are installed, which come with `extra`.

    Raises:
        MissingExtra: one is not; the message names it and the extra.
    """
    for name in packages:
        if importlib.util.find_spec(name) is None:
            raise _refusal(name, extra)


def require_ray(cluster: object | None) -> None:
    """Check that Ray is installed, where a cluster is to be used. Raises MissingExtra."""
    if cluster is not None:
        require("ray", extra="ray")


def _refusal(name: str, extra: str | None = None) -> MissingExtra:
    if extra is None:
        extra = "onnx" if name in ONNX_PACKAGES and name not in MODEL_PACKAGES else "torch"
    without_cuda = ", or budc[onnx-cpu] without CUDA" if extra == "onnx" else ""
    return MissingExtra(
        f"{name} is not installed; it comes with budc[{extra}]{without_cuda}", remedy=install(extra)
    )


@contextlib.contextmanager
def model_libraries(*, download: bool = False, if_stopped: str = "") -> Iterator[None]:
    """Import and use torch, diffusers and transformers in the with-block, with nothing of theirs on stdout.

    Args:
        download: let the model hub be asked. Otherwise it is not, so that no command waits for a network.
        if_stopped: what the user should know who interrupts the block; empty for nothing.

    Raises:
        Interrupted: the user did, and `if_stopped` says what that means.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr), _hub(online=download), _seldom_collected():
            stage("import", "torch and diffusers")
            quiet_libraries(downloads=download)
            yield
    except KeyboardInterrupt:
        if not if_stopped:
            raise
        raise Interrupted(f": {if_stopped}") from None


@contextlib.contextmanager
def _hub(*, online: bool) -> Iterator[None]:
    """Keep huggingface_hub off the network; it reads this variable once, when it is imported."""
    if online or OFFLINE in os.environ:
        yield
        return
    os.environ[OFFLINE] = "1"
    try:
        yield
    finally:
        del os.environ[OFFLINE]


@contextlib.contextmanager
def _seldom_collected() -> Iterator[None]:
    usual, *older = gc.get_threshold()
    gc.set_threshold(max(usual, NEW_OBJECTS), *older)
    try:
        yield
    finally:
        gc.set_threshold(usual, *older)


def quiet_libraries(*, downloads: bool = False) -> None:
    """Switch off the loading bars and notices of diffusers and transformers, for the rest of the process.

    `downloads` keeps the hub client's own bars, which show a fetch of many gigabytes.
    """
    for name in ("torchao", "torch.utils._pytree"):
        # diffusers imports torchao wherever it is installed, which then lists the kernels that this machine lacks.
        logging.getLogger(name).setLevel(logging.ERROR)
    import diffusers.utils.logging
    import transformers.utils.logging

    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
    if downloads:
        from huggingface_hub.utils.tqdm import enable_progress_bars

        enable_progress_bars()
