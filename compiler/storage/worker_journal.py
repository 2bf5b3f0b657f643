"""A worker's journal: records of the process that compiles, and what the worker adds to them, in memory.

The files of chunks lie in the folder of the true journal, which both can write.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from budc.compiler.storage.journal import Journal
from budc.compiler.storage.tensors import Records


class WorkerJournal(Journal):
    """`written` has what was put here: it is for the true journal. Nothing is locked and nothing appended."""

    def __init__(self, folder: Path, records: Records, jobs: int = 1) -> None:
        self.folder = folder
        self.jobs = jobs
        self.records = dict(records)
        self.written: dict[str, object] = {}
        self._path = folder / "journal.jsonl"

    def put(self, key: str, value: object) -> None:
        """Keep a record."""
        value = msgspec.to_builtins(value)
        self.records[key] = self.written[key] = value

    def discard(self) -> None:
        """Do nothing: the folder is not this process's."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass
