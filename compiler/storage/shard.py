"""One of several jobs that share a compile's reference runs: `--shard 2/8`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from budc.option_names import option
from budc.schema.errors import UsageError

MAX_SHARDS = 1024
_SHARD = re.compile(r"([0-9]{1,4})/([0-9]{1,4})\Z")


@dataclass(frozen=True)
class Shard:
    """The job `number`, counted from 1, of so many `jobs`."""

    number: int
    jobs: int

    def takes(self, position: int) -> bool:
        """Whether it computes the piece of work at this position, counted from 0."""
        return position % self.jobs == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.jobs}"


def parse_shard(text: str) -> Shard:
    """Return the shard that the user names. Raises UsageError: it is not of the form 2/8, or out of range."""
    match = _SHARD.match(text.strip())
    shard = Shard(int(match[1]), int(match[2])) if match else None
    if shard is None or not 1 <= shard.number <= shard.jobs <= MAX_SHARDS:
        raise UsageError(
            f"{option('shard')}: {text[:80]!r} is no shard",
            remedy=f"write the job's number and how many there are, from 1/8 to 8/8; at most {MAX_SHARDS}",
        )
    return shard
