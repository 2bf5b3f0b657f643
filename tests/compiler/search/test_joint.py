"""What the default search may spend."""

import random

import pytest

from budc.compiler.search.joint import allowance


def spent(seen):
    """Return the rollouts that candidates take where those that begin alike share it, counted by their prefixes."""
    prefixes = {
        (candidate.payload, candidate.mask.compute_steps[: end + 1])
        for candidate in seen
        for end in range(candidate.mask.nfe)
    }
    return len(prefixes) / seen[0].mask.nfe


def test_few_evaluations_may_spend_less():
    found = [allowance(nfe) for nfe in range(1, 30)]
    assert found == sorted(found)
    assert (found[0], found[7], found[-1]) == (18, 24, 28)


@pytest.mark.parametrize("nfe", [4, 8, 14])
def test_the_allowance_is_spent_and_no_more_than_the_candidate_that_reaches_it(nfe, run, space, costs):
    wanted = space(50, nfe, errors={"trunk-residual": costs(50, 1), "velocity": costs(50, 2)})
    for seed in range(3):
        _, seen = run("joint", wanted, lambda candidate: random.Random(candidate.key).random(), seed)
        assert allowance(nfe) <= spent(seen) < allowance(nfe) + 2
