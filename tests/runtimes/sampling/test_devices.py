"""Devices by name: those of this machine, and an error that lists them for any other."""

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from budc.runtimes.sampling.devices import device_name, device_names, find_device  # noqa: E402
from budc.schema.errors import UsageError  # noqa: E402
from budc.schema.plural import counted  # noqa: E402


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch see two accelerators."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: SimpleNamespace(type="xpu"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)


@pytest.mark.usefixtures("two_gpus")
def test_an_accelerator_comes_first() -> None:
    assert device_names() == ["xpu:0", "xpu:1", "cpu"]
    assert find_device() == torch.device("xpu")
    assert find_device("xpu:1") == torch.device("xpu:1")
    assert find_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("name", ["xpu:2", "cuda", "cuda:0", "gpu", "", "xpu:", "h100", "cpu:0"])
def test_another_device_is_refused_with_those_that_there_are(name: str) -> None:
    with pytest.raises(UsageError) as refused:
        find_device(name)
    assert str(refused.value) == f"--device: {name!r} is no device of this machine"
    assert refused.value.remedy == "use one of xpu:0, xpu:1, cpu"


def test_without_an_accelerator_there_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert device_names() == ["cpu"]
    assert find_device() == torch.device("cpu")
    assert device_name(torch.device("cpu")) == "cpu, " + counted(torch.get_num_threads(), "thread")
    assert device_name(torch.device("mps")) == "mps"
