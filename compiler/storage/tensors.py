"""Parts: tensors of a prompt set, a file at a time, on disk as soon as they are finished and never made twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from safetensors.torch import load_file, save
from torch import Tensor

from budc.compiler.storage.journal import Journal
from budc.schema.errors import JournalCorrupt
from budc.schema.files import write_atomic
from budc.schema.hashing import sha256_file

SHARD_SIZE = 8
"""Samples a file; the same whatever batch fits the device, so that a resumed compile finds them."""


class Shard(NamedTuple):
    """One file: its tensors, what was noted of it, and whether an earlier call had made it."""

    tensors: Mapping[str, Tensor]
    notes: Mapping[str, Any]
    replayed: bool


def shard_spans(samples: int) -> list[tuple[int, int]]:
    """Return (first, last + 1) of every part."""
    return [(first, min(first + SHARD_SIZE, samples)) for first in range(0, samples, SHARD_SIZE)]


def stored_shards(
    journal: Journal,
    label: str,
    samples: int,
    make: Callable[[int, int], tuple[Mapping[str, Tensor], Mapping[str, Any]]],
) -> Iterator[Shard]:
    """Yield every part in order: from the journal's folder, or from `make(first, last)`, which returns tensors, notes.

    Raises:
        JournalCorrupt: a part on disk is not what was written.
    """
    for first, last in shard_spans(samples):
        key = f"{label} {first}:{last}"
        path = journal.folder / f"{label.replace(' ', '-')}-{first}-{last}.safetensors"
        known = journal.get(key)
        if known is None:
            tensors, notes = make(first, last)
            write_atomic(path, save({name: tensor.contiguous() for name, tensor in tensors.items()}))
            journal.put(key, {**notes, "sha256": sha256_file(path)})
            yield Shard(tensors, notes, replayed=False)
            continue
        if not path.is_file() or sha256_file(path) != known["sha256"]:
            raise JournalCorrupt(f"{path}: is not what was written")
        yield Shard(load_file(path), known, replayed=True)
