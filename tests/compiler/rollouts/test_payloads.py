"""What is cached of a computed step, and the velocity that a reused step makes of it."""

from typing import get_args

import torch

from budc.compiler.rollouts.payloads import CACHED_PAYLOADS
from budc.schema.policy import PAYLOADS, Payload

VELOCITY, RESIDUAL = torch.tensor(1.0), torch.tensor(2.0)


def test_every_payload_of_the_format_can_be_rolled_out():
    assert set(CACHED_PAYLOADS) == set(get_args(Payload))
    assert set(PAYLOADS) < set(CACHED_PAYLOADS)


def test_a_cached_residual_runs_the_network_around_it():
    payload = CACHED_PAYLOADS["trunk-residual"]
    assert payload.cached(VELOCITY, RESIDUAL) is RESIDUAL
    assert float(payload.velocity(RESIDUAL, lambda residual: 10 * residual)) == 20.0
    assert not payload.linear


def test_a_cached_velocity_runs_nothing():
    payload = CACHED_PAYLOADS["velocity"]
    assert payload.cached(VELOCITY, RESIDUAL) is VELOCITY
    assert payload.velocity(VELOCITY, lambda _: torch.tensor(0.0)) is VELOCITY
    assert payload.linear
