"""Tests on ComfyUI's engine itself. They run in a process of their own, which `test_engine.py` one folder up starts."""

import os
from collections.abc import Callable
from typing import Any

import pytest

from budc.schema.policy import PolicyDocument

IN_OWN_PROCESS = os.environ.get("BUDC_COMFYUI_PROCESS") == "1"

collect_ignore_glob = [] if IN_OWN_PROCESS else ["test_*.py"]


@pytest.fixture(scope="session", autouse=True)
def engine() -> Any:
    """The engine's modules, importable."""
    from comfyui_engine import import_engine

    import_engine()
    import comfy.samplers

    return comfy


@pytest.fixture
def document(wan: Any, compiled_for: Callable[..., PolicyDocument]) -> PolicyDocument:
    """A policy for the small Wan of the tests."""
    from comfyui_runs import ROWS

    return compiled_for(wan, [not row for row in ROWS], ROWS)


@pytest.fixture
def patcher(wan: Any) -> Any:
    """That Wan as a MODEL."""
    from comfyui_models import engine_model

    return engine_model(wan.transformer)
