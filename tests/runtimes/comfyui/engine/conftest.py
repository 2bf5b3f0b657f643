"""Tests on ComfyUI's engine itself. They run in a process of their own, which `test_engine.py` one folder up starts."""

import os
from typing import Any

import pytest

IN_OWN_PROCESS = os.environ.get("BUDC_COMFYUI_PROCESS") == "1"

collect_ignore_glob = [] if IN_OWN_PROCESS else ["test_*.py"]


@pytest.fixture(scope="session", autouse=True)
def engine() -> Any:
    """The engine's modules, importable."""
    from comfyui_engine import import_engine

    import_engine()
    import comfy.samplers

    return comfy
