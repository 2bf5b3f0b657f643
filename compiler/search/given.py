"""`--mask`: no search. The mask that the user gives, with plain reuse or with coefficients fitted to it."""

from __future__ import annotations

import random

from budc.compiler.search.space import Candidate, Proposals, Rule, Space
from budc.option_names import option
from budc.schema.errors import UsageError
from budc.schema.policy import Payload

GIVEN, GIVEN_FITTED = "given", "given-fitted"
"""What the algorithms are called in an artifact; a user names them by `--mask`, and `--fit`."""


def given(space: Space, rng: random.Random) -> Proposals:
    """Propose the first of the space's published masks, with plain reuse. Raises UsageError: there is none."""
    return _only(space, *space.unfitted)


def given_fitted(space: Space, rng: random.Random) -> Proposals:
    """Propose the same mask, with coefficients fitted along its trajectory. Raises UsageError: there is none."""
    return _only(space, "tracked", "trunk-residual")


def _only(space: Space, rule: Rule, payload: Payload) -> Proposals:
    if not space.published_masks:
        raise UsageError(
            "no mask is given", remedy=f"use {option('search', 'joint')}, or `budc compile --mask`"
        )
    candidate = Candidate.of(space.steps, space.through(space.published_masks[0]), rule, payload)
    yield [candidate]
    return candidate
