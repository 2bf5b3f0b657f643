"""Shards: tensors of a prompt set in files of a few samples each, on disk as soon as they are computed.

A compile that is resumed reads them instead of computing them again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import load_file, save
from torch import Tensor

from budc.compiler.storage.journal import Journal
from budc.schema.errors import JournalCorrupt
from budc.schema.files import write_atomic
from budc.schema.hashing import sha256_file

SHARD_SIZE = 8
"""Samples of a shard. It does not depend on the batch that fits the device, so a resumed compile finds its shards."""


class Shard(NamedTuple):
    """One file: its tensors, the notes that the journal has on it, and whether it was read from disk."""

    tensors: Mapping[str, Tensor]
    notes: Mapping[str, Any]
    replayed: bool


def shard_spans(samples: int) -> list[tuple[int, int]]:
    """Return the samples of every shard, (first, last + 1)."""
    return [(first, min(first + SHARD_SIZE, samples)) for first in range(0, samples, SHARD_SIZE)]


def stored_shards(
    journal: Journal,
    label: str,
    samples: int,
    compute: Callable[[int, int], tuple[Mapping[str, Tensor], Mapping[str, Any]]],
) -> Iterator[Shard]:
    """Yield every shard in order: from the journal's folder, or computed and stored there.

    `compute(first, last)` returns the tensors of these samples, and notes for the journal.

    Raises:
        JournalCorrupt: a shard on disk is not what was written.
    """
    for first, last in shard_spans(samples):
        key = f"{label} {first}:{last}"
        path = journal.folder / f"{label.replace(' ', '-')}-{first}-{last}.safetensors"
        notes = journal.get(key)
        if notes is None:
            tensors, notes = compute(first, last)
            write_atomic(path, save({name: tensor.contiguous() for name, tensor in tensors.items()}))
            journal.put(key, {**notes, "sha256": sha256_file(path)})
            yield Shard(tensors, notes, replayed=False)
            continue
        if not _is_intact(path, notes):
            raise JournalCorrupt(f"{path}: is missing, or not what this compile has written")
        yield Shard(load_file(path), notes, replayed=True)


def _is_intact(path: Path, notes: Any) -> bool:
    """Return whether the file is regular, no link, and has the digest that the journal noted."""
    return (
        isinstance(notes, Mapping)
        and path.exists()
        and not path.is_symlink()
        and sha256_file(path) == notes.get("sha256")
    )
