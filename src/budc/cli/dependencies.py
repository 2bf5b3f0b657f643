"""What a command needs beyond the core: optional packages, said before minutes are spent, and quiet loading."""

from __future__ import annotations

import importlib.util

from budc.schema.errors import MissingExtra

MODEL_PACKAGES = ("torch", "diffusers", "transformers", "safetensors", "numpy", "ftfy")
"""Packages without which no pipeline loads. Some are found missing only halfway through a run."""
ONNX_PACKAGES = ("onnxruntime", "onnx", "tokenizers", "numpy", "ftfy")
"""Packages without which no exported model runs."""
_OPTIONAL = {
    *MODEL_PACKAGES,
    *ONNX_PACKAGES,
    "PIL",
    "accelerate",
    "huggingface_hub",
    "imageio",
    "imageio_ffmpeg",
}


class Interrupted(Exception):  # noqa: N818
    """The user stopped a command that has more to say about it than that; the text follows "interrupted"."""


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


def _refusal(name: str, extra: str | None = None) -> MissingExtra:
    if extra is None:
        extra = "onnx" if name in ONNX_PACKAGES and name not in MODEL_PACKAGES else "torch"
    return MissingExtra(
        f"{name} is not installed; it comes with budc[{extra}]", remedy=f"pip install 'budc[{extra}]'"
    )


def quiet_libraries(*, downloads: bool = False) -> None:
    """Switch off the loading bars and notices of diffusers and transformers, for the rest of the process.

    `downloads` keeps the hub client's own bars, which show a fetch of many gigabytes.
    """
    import diffusers.utils.logging
    import transformers.utils.logging

    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
    if downloads:
        from huggingface_hub.utils.tqdm import enable_progress_bars

        enable_progress_bars()
