"""When a compile has paid for itself, and how long it takes where, counted by hand."""

import pytest
from msgspec.structs import replace

from budc.cli.output.units import between, duration, size
from budc.compiler.planning.count import Count
from budc.compiler.planning.devices import DEVICES
from budc.compiler.planning.estimate import UTILISATION, CompileEstimate
from budc.compiler.planning.forwards import CompileSettings
from budc.compiler.planning.memory import Fit
from budc.compiler.planning.on_devices import on_devices
from budc.compiler.planning.payback import Payback, paybacks
from budc.policies.costs import Cost
from budc.policies.profile import load_profile

PROFILE = replace(load_profile("wan2.1"), steps=50)


def estimate(nfe: int = 10, *, reuse: float = 0.1, weights: int = 10**9) -> CompileEstimate:
    """A compile of 3000 forwards of 1 TFLOP."""
    cost = Cost(
        parameters=1,
        flops=1e12,
        reuse_flops=reuse * 1e12,
        weights=weights,
        one_block=weights // 10,
        residual=10**6,
        latents=10**4,
        activations=10**9,
    )
    settings = CompileSettings(PROFILE, (nfe,), 50, "joint")
    stages = {"search": Count(2000, 1640, 2720), "report": Count.exactly(1000)}
    return CompileEstimate(settings, cost, stages, None, False)


def test_a_compile_pays_for_itself_by_what_each_sample_saves() -> None:
    # Two branches of 50 forwards, of which 10 stay and 40 cost a tenth: 100 - 2 * 14 = 72 saved.
    assert paybacks(estimate()) == (Payback(10, full=100, policy=28, samples=Count(42, 37, 52)),)
    assert paybacks(estimate(50)) == (Payback(50, full=100, policy=100, samples=None),)


def test_every_device_is_listed_fastest_first() -> None:
    found = on_devices(estimate(weights=30 * 10**9))
    assert found.keys() == DEVICES.keys()
    hours = [there.hours for there in found.values()]
    assert hours == sorted(hours)
    assert found["h100"].hours == pytest.approx(3000e12 / (UTILISATION * 989e12) / 3600)
    assert {name for name, there in found.items() if there.fit is not Fit.WHOLE} == {"rtx4090"}
    assert found["rtx4090"].fit is Fit.GROUP


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


@pytest.mark.parametrize(
    ("count", "said"),
    [(28_400_000_000, "28 GB"), (2_840_000_000, "2.8 GB"), (335_000_000, "335 MB"), (9, "9 bytes")],
)
def test_sizes_have_the_digits_that_mean_something(count: int, said: str) -> None:
    assert size(count) == said


def test_bounds_are_told_apart_by_as_few_digits_as_will_do() -> None:
    assert between(9036, 9036) == "9,036"
    assert between(9036, 11_746) == "9,000 to 12,000"
    assert between(11_240, 11_420) == "11,200 to 11,400"
