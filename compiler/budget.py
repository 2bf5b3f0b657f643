"""Budget: what the user asked for, as a number of function evaluations."""

from __future__ import annotations

import math
import re

from budc.option_names import option
from budc.schema.errors import BudgetImpossible

_COUNT = re.compile(r"[0-9]{1,6}\Z")
_FACTOR = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)x\Z")


def parse_budget(requested: str, steps: int, denoisers: int = 1, *, source: str = "budget") -> int:
    """Return the NFE per guidance branch that a request means at `steps` steps.

    `"10"` is ten evaluations. `"2.8x"` is the most evaluations that are at least 2.8 times fewer than the
    reference run's; a reused step costs well under 1 % of a computed one, so that is the speed-up within 2 %. Each of
    the `denoisers` that share the run computes its first step. `source` is the option that it came in, for errors.

    Raises:
        BudgetImpossible: not of either form, or not between one evaluation a denoiser and `steps`.
    """
    text = requested.strip().lower()
    if _COUNT.match(text):
        nfe = int(text)
    elif (factor := _FACTOR.match(text)) and float(factor[1]) >= 1:
        nfe = math.floor(steps / float(factor[1]) + 1e-9)
    else:
        raise BudgetImpossible(
            f"{option(source)}: {requested!r} is neither a number of evaluations nor a speed-up",
            remedy=f"give evaluations ({option(source, 10)}) or a factor of at least 1 ({option(source, '2.8x')})",
        )
    if not denoisers <= nfe <= steps:
        reason = f", and each of {denoisers} denoisers computes its first" if denoisers > 1 else ""
        raise BudgetImpossible(
            f"{option(source)}: {requested!r} is {nfe} evaluations, but a run of {steps} steps has {denoisers} to "
            f"{steps}{reason}",
            remedy=f"ask for {denoisers} to {steps}",
        )
    return nfe
