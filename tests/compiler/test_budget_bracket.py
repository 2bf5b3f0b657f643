"""The smallest budget that keeps a bound: every answer is found, in few tries where errors follow a power law."""

import math
import random

import pytest

from budc.compiler.budget_bracket import Bracket

STEPS = 50
MOST_TRIES = 18
"""Three for each halving of the logarithm of 50 until a bracket has one number."""


def tries(answer, margin):
    """Return the budgets that are tried until `answer` is found."""
    bracket, tried = Bracket(1, STEPS, 5.5), []
    while (nfe := bracket.next) is not None:
        tried.append(nfe)
        bracket.tell(nfe, margin(nfe), kept=nfe >= answer)
    assert bracket.high == answer
    assert len(tried) == len(set(tried))
    assert STEPS not in tried
    return tried


@pytest.mark.parametrize(("slope", "most"), [(5.5, 3), (1.5, 6), (15.0, 6)])
def test_a_power_law_takes_few_tries(slope, most):
    for answer in range(1, STEPS + 1):
        # The margin is nothing a little below the answer.
        zero = answer - 0.3
        assert len(tries(answer, lambda nfe, zero=zero: slope * math.log(nfe / zero))) <= most


@pytest.mark.parametrize("margin", [1.0, 1e-9, math.inf, None])
def test_any_other_curve_is_halved(margin):
    rng = random.Random(0)
    for answer in range(1, STEPS + 1):

        def signed(nfe, answer=answer):
            size = abs(rng.gauss(0, 5)) if margin is None else margin
            return size if nfe >= answer else -size

        assert len(tries(answer, signed)) <= MOST_TRIES


def test_what_is_likely_to_be_tried_is_told():
    bracket = Bracket(1, STEPS, 5.5)
    # A fifth of the steps is the usual answer; beside it the budget below is tried.
    assert bracket.expected() == [7, 10, 9, 10]
    bracket.tell(7, 5.5 * math.log(7 / 19.5), kept=False)
    assert bracket.expected() == [20, 19, 20]
    bracket.tell(20, 0.1, kept=True)
    bracket.tell(19, -0.1, kept=False)
    assert (bracket.next, bracket.expected()) == (None, [20])


def test_a_single_budget_is_the_answer():
    assert Bracket(5, 5, 5.5).expected() == [5]
