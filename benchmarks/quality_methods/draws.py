"""Draws: further prompt sets of the same files, to see how much a figure depends on which prompts were taken.

Draw 0 is what a compile takes: the first prompts of a file. The next draw takes those after them, and so on; past the
end of the file it begins again, with the next noise seeds. So no two draws share a prompt and its noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice

from budc.policies.samples import Sample


def drawn(prompts: Sequence[Sample], size: int, draw: int) -> tuple[Sample, ...]:
    """Return `size` samples of a draw from all prompts of a file, whose seeds are in a row."""
    first = draw * size
    taken = islice(cycle(prompts), first, first + size)
    return tuple(sample._replace(seed=prompts[0].seed + index) for index, sample in enumerate(taken, first))
