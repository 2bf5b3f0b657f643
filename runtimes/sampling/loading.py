"""Loading with the model libraries: their errors as one of ours that names the folder, and their schedulers by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from budc.runtimes.sampling.device_memory import is_out_of_memory
from budc.schema.errors import DeviceMemory, UnsupportedModel, WeightsMissing
from budc.schema.foreign_error import reason_of

_FAILURES = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    RuntimeError,
    MemoryError,
    SafetensorError,
)


@contextmanager
def loading(folder: Path) -> Iterator[None]:
    """Load something from `folder` in the with-block.

    Raises:
        WeightsMissing: diffusers, transformers or safetensors could not load it; the message has their reason.
        DeviceMemory: there is not enough memory for it.
    """
    try:
        yield
    except _FAILURES as error:
        if is_out_of_memory(error):
            raise DeviceMemory(f"{folder}: there is not enough memory to load it") from error
        raise WeightsMissing(f"{folder}: cannot be loaded: {reason_of(error)}") from error


def scheduler_class(name: str, model: str) -> Any:
    """Return the scheduler class of diffusers that is called `name`, for a model that messages call `model`.

    Raises:
        UnsupportedModel: diffusers has none of that name.
    """
    import diffusers

    found = getattr(diffusers, name, None)
    if not (isinstance(found, type) and issubclass(found, diffusers.SchedulerMixin)):
        raise UnsupportedModel(
            f"{model}: diffusers {diffusers.__version__} has no scheduler {name}",
            remedy="name another class under scheduler in its profile, or install the release that has it",
        )
    return found
