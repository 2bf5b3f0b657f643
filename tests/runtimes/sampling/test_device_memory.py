"""Memory that runs out is one error, however torch says it; other errors stay what they are."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from budc.runtimes.sampling.device_memory import device_memory  # noqa: E402
from budc.runtimes.sampling.loading import loading  # noqa: E402
from budc.schema.errors import DeviceMemory, WeightsMissing  # noqa: E402

WORDS = {
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "mps": RuntimeError("MPS backend out of memory (MPS allocated: 9.0 GB)."),
    "cpu": RuntimeError("[enforce fail at alloc_cpu.cpp:126] DefaultCPUAllocator: can't allocate memory"),
    "host": MemoryError(),
}


@pytest.mark.parametrize("error", WORDS.values(), ids=WORDS)
def test_memory_that_runs_out_is_one_error(error: Exception) -> None:
    caught = pytest.raises(DeviceMemory, match="the VAE does not fit into the memory")
    with caught as raised, device_memory("the VAE", "leave it out"):
        raise error
    assert raised.value.remedy == "leave it out"
    with pytest.raises(DeviceMemory, match="folder: there is not enough memory"), loading(Path("folder")):
        raise error


def test_other_errors_stay_what_they_are() -> None:
    broken = RuntimeError("size mismatch for blocks.0.weight")
    with pytest.raises(RuntimeError, match="size mismatch"), device_memory("the VAE"):
        raise broken
    with pytest.raises(WeightsMissing, match="size mismatch"), loading(Path("folder")):
        raise broken
