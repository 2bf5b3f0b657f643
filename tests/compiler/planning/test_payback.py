"""When a compile has paid for itself, and where it fits, counted by hand."""

import pytest

pytest.importorskip("torch")

from msgspec.structs import replace

from budc.cli.output.duration import duration
from budc.compiler.planning.cost import Cost
from budc.compiler.planning.devices import DEVICES
from budc.compiler.planning.estimate import UTILISATION, CompileEstimate
from budc.compiler.planning.forwards import CompileSettings
from budc.compiler.planning.on_devices import on_devices
from budc.compiler.planning.payback import Payback, payback
from budc.policies.profile import load_profile

PROFILE = replace(load_profile("wan2.1"), steps=50)


def estimate(nfe: int = 10, *, reuse: float = 0.1, weights: int = 10**9) -> CompileEstimate:
    """A compile of 3000 forwards of 1 TFLOP."""
    cost = Cost(
        parameters=1,
        flops=1e12,
        reuse_flops=reuse * 1e12,
        weights=weights,
        residual=10**6,
        activations=10**9,
    )
    settings = CompileSettings(PROFILE, nfe, 50, "joint", False)
    return CompileEstimate(settings, cost, {"search": 2000, "report": 1000}, None, False, 0)


def test_a_compile_pays_for_itself_by_what_each_sample_saves() -> None:
    # Two branches of 50 forwards, of which 10 stay and 40 cost a tenth: 100 - 2 * 14 = 72 saved.
    assert payback(estimate()) == Payback(full=100, policy=28, samples=42)
    assert payback(estimate(50)) == Payback(full=100, policy=100, samples=None)


def test_every_device_is_listed_fastest_first() -> None:
    found = on_devices(estimate(weights=30 * 10**9))
    assert found.keys() == DEVICES.keys()
    hours = [there.hours for there in found.values()]
    assert hours == sorted(hours)
    assert found["h100"].hours == pytest.approx(3000e12 / (UTILISATION * 989e12) / 3600)
    assert {name for name, there in found.items() if not there.fits} == {"rtx4090"}


@pytest.mark.parametrize(
    ("hours", "said"),
    [
        (100.0, "4.2 days"),
        (36.0, "1.5 days"),
        (30.0, "30 hours"),
        (2.04, "2.0 hours"),
        (1.0, "60 minutes"),
        (1 / 60, "60 seconds"),
        (0.0, "0.0 seconds"),
    ],
)
def test_durations_are_in_the_unit_that_a_person_would_use(hours: float, said: str) -> None:
    assert duration(hours) == said
