"""What is cached of a computed step, and what a reused one makes of it."""

import pytest
import torch

from budc.compiler.rollouts.payloads import CACHED_PAYLOADS
from budc.schema.policy import PAYLOADS


def test_every_payload_of_the_format_can_be_rolled_out():
    assert tuple(CACHED_PAYLOADS) == PAYLOADS


@pytest.mark.parametrize(
    ("payload", "cached", "velocity", "linear"),
    [("trunk-residual", 2.0, 20.0, False), ("velocity", 1.0, 1.0, True)],
)
def test_a_residual_runs_the_network_and_a_velocity_does_not(payload, cached, velocity, linear):
    kind = CACHED_PAYLOADS[payload]
    kept = kind.cached(torch.tensor(1.0), torch.tensor(2.0))
    assert float(kept) == cached
    assert float(kind.velocity(kept, lambda residual: 10 * residual)) == velocity
    assert kind.linear is linear
