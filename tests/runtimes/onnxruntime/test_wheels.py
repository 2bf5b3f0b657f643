"""ONNX Runtime's wheels, which write to the same folder."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

ort = pytest.importorskip("onnxruntime")

from budc.runtimes.onnxruntime import wheels  # noqa: E402
from budc.runtimes.onnxruntime.provider import choose_provider  # noqa: E402
from budc.runtimes.onnxruntime.wheels import check_wheels, installed_wheels  # noqa: E402
from budc.schema.errors import MissingExtra, ProviderMissing  # noqa: E402

Install = Callable[..., None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Pretend that these wheels and no others are installed."""

    def pretend(*names: str) -> None:
        monkeypatch.setattr(wheels, "_is_installed", lambda name: name in names)

    return pretend


def test_this_one_is_found() -> None:
    assert set(installed_wheels()) & {"onnxruntime", "onnxruntime-gpu"}
    check_wheels()


def test_two_wheels_explain_a_missing_provider(monkeypatch: pytest.MonkeyPatch, install: Install) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    install("onnxruntime", "onnxruntime-gpu")
    with pytest.raises(
        ProviderMissing, match="onnxruntime and onnxruntime-gpu are both installed"
    ) as refusal:
        choose_provider("cuda")
    assert refusal.value.remedy.startswith("pip uninstall onnxruntime onnxruntime-gpu, then pip install")
    install("onnxruntime")
    with pytest.raises(ProviderMissing, match=r"is built without cuda$") as refusal:
        choose_provider("cuda")
    assert refusal.value.remedy.startswith("pip uninstall onnxruntime, then pip install")


def test_a_folder_without_files_is_refused(monkeypatch: pytest.MonkeyPatch, install: Install) -> None:
    emptied: Any = ModuleType("onnxruntime")
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", emptied)
    install("onnxruntime-gpu")
    with pytest.raises(MissingExtra, match="was uninstalled beside another") as refusal:
        check_wheels()
    assert "pip uninstall onnxruntime-gpu, then" in refusal.value.remedy
