"""Chunks: tensors of a prompt set in files of a few samples each, on disk as soon as they are computed.

A compile that is resumed reads them instead of computing them again.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from budc.compiler.storage.journal import Journal
from budc.compiler.storage.shard import Shard
from budc.schema.errors import JournalCorrupt
from budc.schema.files import write_atomic
from budc.schema.hashing import sha256_file

CHUNK_SIZE = 8
"""Samples of a chunk, at most. It does not depend on the batch that fits the device, so a resumed compile finds its
chunks."""


Span = tuple[int, int]
"""Samples of a chunk: the first, and the one after the last."""
Records = Mapping[str, object]
"""Records for the journal, by their keys."""
Elsewhere = Callable[[Sequence[Span]], Iterator[Records]]
"""Has chunks computed by other processes, which write the files; yields the records of each as it is finished."""


class Chunk(NamedTuple):
    """One file: its tensors, a number that the journal has with it, and whether it was read from disk."""

    tensors: Mapping[str, Tensor]
    note: int
    replayed: bool


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the journal has of a chunk."""

    sha256: str
    note: Annotated[int, msgspec.Meta(ge=0)]


def chunk_spans(journal: Journal, samples: int, shard: Shard | None = None) -> list[Span]:
    """Return the samples of every chunk, or of those of one shard, as (first, last + 1).

    Where several jobs share them, they are cut so that each has as many, as far as the samples go.
    """
    size, share = CHUNK_SIZE, math.ceil(samples / journal.jobs)
    if journal.jobs > 1:
        size = math.ceil(share / math.ceil(share / CHUNK_SIZE))
    spans = [(first, min(first + size, samples)) for first in range(0, samples, size)]
    return [span for position, span in enumerate(spans) if shard is None or shard.takes(position)]


def stored_chunks(
    journal: Journal,
    label: str,
    samples: int,
    names: Collection[str],
    compute: Callable[[int, int], tuple[Mapping[str, Tensor], int]],
    spans: Sequence[Span] | None = None,
    elsewhere: Elsewhere | None = None,
) -> Iterator[Chunk]:
    """Yield the chunks `spans` in order, by default all: from the journal's folder, or computed and stored there.

    `compute(first, last)` returns the tensors `names` of these samples, and a number for the journal. With `elsewhere`
    what is missing is computed by other processes.

    Raises:
        JournalCorrupt: a chunk on disk, or what the journal has of it, is not what was written.
    """
    spans = chunk_spans(journal, samples) if spans is None else spans
    missing = [span for span in spans if journal.get(_key(label, span), _Record) is None]
    computed = iter(()) if elsewhere is None or not missing else elsewhere(missing)
    for span in spans:
        key, path = _key(label, span), journal.folder / f"{file_name(label)}-{span[0]}-{span[1]}.safetensors"
        while (record := journal.get(key, _Record)) is None and (records := next(computed, None)) is not None:
            for name, value in records.items():
                journal.put(name, value)
        if record is None:
            first, last = span
            tensors, note = compute(first, last)
            write_atomic(path, save({name: tensor.contiguous() for name, tensor in tensors.items()}))
            journal.put(key, _Record(sha256_file(path), note))
            yield Chunk(tensors, note, replayed=False)
        else:
            yield Chunk(_stored(path, record.sha256, names), record.note, replayed=span not in missing)


def _key(label: str, span: Span) -> str:
    return f"{label} {span[0]}:{span[1]}"


def file_name(label: str) -> str:
    """Return a label as part of a file's name: as it is where it can be, else cut down, with a digest of the whole."""
    plain = label.replace(" ", "-")
    if re.fullmatch(r"[\w.=+-]{1,100}", plain, re.ASCII):
        return plain
    cut = re.sub(r"[^\w.=+-]+", "-", plain, flags=re.ASCII)[:60].strip(".-")
    return f"{cut}-{hashlib.sha256(label.encode()).hexdigest()[:16]}"


def _stored(path: Path, sha256: str, names: Collection[str]) -> Mapping[str, Tensor]:
    """Return the tensors of a chunk on disk: a regular file, no link, with the digest that the journal has."""
    tensors: Mapping[str, Tensor] = {}
    if path.is_file() and not path.is_symlink() and sha256_file(path) == sha256:
        try:
            tensors = load_file(path)
        except SafetensorError as error:
            raise JournalCorrupt(f"{path}: {error}") from error
    if tensors.keys() != set(names):
        raise JournalCorrupt(f"{path}: is missing, or not what this compile has written")
    return tensors
