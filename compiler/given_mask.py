"""A mask that the user gives: compute steps with commas between them, or one character for each step.

parse_mask("0,3,6,9", steps=12)
parse_mask("#..#..#..#..", steps=12)        # as `budc inspect` prints it: █··█··█··█··
"""

from __future__ import annotations

import re

from budc.option_names import option
from budc.schema.errors import SemanticsViolation, UsageError
from budc.schema.mask import StepMask

_COMPUTED, _REUSED = "#█", ".·"
_LIST = re.compile(r"\s*[0-9]{1,6}(\s*,\s*[0-9]{1,6})*\s*\Z")


def parse_mask(text: str, steps: int) -> StepMask:
    """Return the mask for a run of `steps` steps.

    Raises:
        UsageError: it is of neither form, names steps that there are not or one twice, has another length, or does
            not compute the first step.
    """
    try:
        if _LIST.match(text):
            return StepMask.from_compute_steps(steps, map(int, text.split(",")))
        strip = text.strip()
        if strip and set(strip) <= set(_COMPUTED + _REUSED):
            return _from_strip(strip, steps)
    except SemanticsViolation as error:
        raise UsageError(
            f"{option('mask')}: {error}", remedy=f"name steps from 0 to {steps - 1}, the first one among them"
        ) from error
    raise UsageError(
        f"{option('mask')}: {text[:80]!r} is no mask",
        remedy=f"write the computed steps ({option('mask', '0,3,6')}), or one of # and . for each step",
    )


def _from_strip(strip: str, steps: int) -> StepMask:
    if len(strip) != steps:
        raise UsageError(
            f"{option('mask')}: is of {len(strip)} steps, but the run has {steps}",
            remedy=f"{option('steps', len(strip))} runs as many, or give {steps} characters",
        )
    return StepMask.of(character in _COMPUTED for character in strip)
