"""Shards of several jobs, put together for the compile that goes on: `budc compile … --merge FOLDER`."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from budc.compiler.shard_run import ABOUT, ENDED
from budc.compiler.storage.journal import Journal
from budc.compiler.storage.shard import MAX_SHARDS, Shard
from budc.schema import canonical
from budc.schema.canonical import digest
from budc.schema.errors import BudcError, JournalBusy, OutputError, UsageError
from budc.schema.files import read_limited

_ABOUT_BYTES = 1 << 20
_FOLDER = re.compile(r"shard-([0-9]{1,4})-of-([0-9]{1,4})\.([0-9a-f]{12})")


@dataclass(frozen=True)
class Shards:
    """The journals of all jobs that share a compile's reference runs."""

    folders: tuple[Path, ...]
    fingerprint: str

    @property
    def jobs(self) -> int:
        """How many they are."""
        return len(self.folders)

    def copy_into(self, journal: Journal) -> None:
        """Give a compile's journal what is in those of the jobs. What it has already is left as it is.

        Raises:
            JournalBusy, UsageError: a job is still running, or was stopped before its end.
            OutputError: there is no room.
        """
        for number, folder in enumerate(self.folders, 1):
            shard = Shard(number, self.jobs)
            try:
                with Journal(folder, self.fingerprint, self.jobs) as done:
                    _check_ended(done, shard)
                    _copy(done, journal)
            except JournalBusy as error:
                raise JournalBusy(f"--merge: shard {shard} is still being computed ({folder})") from error


def find_shards(folder: Path, about: Mapping[str, object]) -> Shards:
    """Return the shards in a folder of the compile whose measurements depend on `about`.

    Raises:
        UsageError: there are none, or some are missing.
    """
    fingerprint = digest(dict(about))
    found: dict[int, dict[int, Path]] = {}
    others: list[Path] = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        match = _FOLDER.fullmatch(path.name)
        if match is None or not 1 <= int(match[1]) <= int(match[2]) <= MAX_SHARDS:
            continue
        if fingerprint[7:19] == match[3]:
            found.setdefault(int(match[2]), {})[int(match[1])] = path
        else:
            others.append(path)
    if not found:
        raise _none_found(folder, others, about)
    count = max(found, key=lambda jobs: (len(found[jobs]) == jobs, len(found[jobs])))
    missing = [Shard(number, count) for number in range(1, count + 1) if number not in found[count]]
    if missing:
        raise UsageError(
            f"--merge: {folder} has {len(found[count])} of {count} shards; {_listed(missing)} not there",
            remedy=f"run the same command with --shard {missing[0]} --out {folder} in place of --merge and --out",
        )
    return Shards(tuple(found[count][number] for number in range(1, count + 1)), fingerprint)


def _none_found(folder: Path, others: Sequence[Path], about: Mapping[str, object]) -> UsageError:
    """Return the error that says why a folder has no shard of this compile."""
    if not others:
        return UsageError(
            f"--merge: {folder} has no shards",
            remedy=f"run the same command with --shard 1/8 --out {folder}, and so on to 8/8",
        )
    differing = "something that it does not say"
    with suppress(BudcError, ValueError):
        theirs = canonical.parse(read_limited(others[0] / ABOUT, _ABOUT_BYTES))
        if isinstance(theirs, dict):
            ours = cast(dict[str, Any], canonical.parse(canonical.encode(dict(about))))
            differing = ", ".join(_differences(theirs, ours))
    return UsageError(
        f"--merge: the shards in {folder} are of another compile; {others[0].name} differs in: {differing}",
        remedy="give the same flags, model, prompts, library versions and kind of device to all jobs and to the merge",
    )


def _differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """Return what differs, in words."""
    words = []
    for name in sorted({*theirs, *ours}):
        there, here = theirs.get(name), ours.get(name)
        if there == here:
            continue
        if isinstance(there, dict) and isinstance(here, dict):
            words += [f"{name} {key}" for key in sorted({*there, *here}) if there.get(key) != here.get(key)]
        elif isinstance(there, str) and isinstance(here, str):
            words.append(f"{name} ({there[:60]} there, {here[:60]} here)")
        else:
            words.append(name)
    return words


def _listed(shards: Sequence[Shard]) -> str:
    names = ", ".join(map(str, shards[:8])) + (", …" if len(shards) > 8 else "")
    return f"{names} {'is' if len(shards) == 1 else 'are'}"


def _check_ended(journal: Journal, shard: Shard) -> None:
    if journal.get(ENDED, str) != str(shard):
        raise UsageError(
            f"--merge: shard {shard} was stopped before its end ({journal.folder})",
            remedy=f"run it again, with --shard {shard} --out {journal.folder.parent}: it goes on where it stopped",
        )


def _copy(done: Journal, journal: Journal) -> None:
    """Copy chunks: first their files, then the records that say what is in them."""
    for path in sorted(done.folder.glob("*.safetensors")):
        target = journal.folder / path.name
        if target.exists():
            continue
        part = target.with_name(f"{target.name}.part")
        try:
            shutil.copyfile(path, part, follow_symlinks=False)
            os.replace(part, target)
        except OSError as error:
            raise OutputError(f"{target}: cannot copy a shard: {error.strerror}") from error
    for key, value in done.records.items():
        if key not in ("batch", ENDED) and key not in journal.records:
            journal.put(key, value)
