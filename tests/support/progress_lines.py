"""Progress as lines on stderr, without those that depend on how busy the machine is."""

import re

_FURTHER = re.compile(r": still going on after |: \d+/\d+")


def begun(stderr: str) -> list[str]:
    """Return the lines but for those which say that a stage goes on."""
    return [line for line in stderr.splitlines() if not _FURTHER.search(line)]
