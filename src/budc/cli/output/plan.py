"""What a compile will cost, as a page of text or as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from budc.cli.output.duration import duration
from budc.cli.output.tables import fields, number, table

if TYPE_CHECKING:
    from budc.compiler.planning.devices import Device
    from budc.compiler.planning.estimate import CompileEstimate

STAGES = ("calibration", "search", "race", "arbitration", "alignment", "refit", "report")
"""In the order in which a compile goes through them."""


def page(
    estimates: Mapping[str, CompileEstimate], effort: str, device: Device | None, advice: list[str]
) -> str:
    """Return what a compile will cost with each effort as a page of text; `advice` is for `effort`."""
    from budc.compiler.planning.estimate import UTILISATION

    estimate = estimates[effort]
    settings, cost = estimate.settings, estimate.cost
    if estimate.seconds is None:
        pace = "not known: name a --device, or give --weights to time a forward here"
    elif estimate.measured:
        pace = f"{estimate.seconds:.4g} s a forward, timed on this machine"
    else:
        assert device is not None
        pace = f"{estimate.seconds:.3g} s a forward, if {device.name} reaches {UTILISATION:.0%} of its peak"
    pairs = [
        ("model", f"{settings.profile.title}, {cost.parameters / 1e9:.3g} billion parameters a denoiser"),
        ("budget", f"{settings.nfe} of {settings.steps} steps"),
        (
            "a forward",
            f"{_counted(cost.flops / 1e12)} TFLOPs; reused {cost.reuse_flops / cost.flops:.2%} of it",
        ),
        (
            "memory",
            f"{estimate.weights / 1e9:.3g} GB weights, {cost.activations / 1e9:.3g} GB activations a sample, "
            f"{cost.residual / 1e6:.3g} MB a residual"
            + (
                f", about {estimate.gradients / 1e9:.3g} GB for a sample's gradient"
                if estimate.gradients
                else ""
            ),
        ),
        ("pace", pace),
        ("a sample", _sample(estimate)),
    ]
    if estimate.seconds is None:
        pairs.append(("it would take", _devices(estimate)))
    lines = "\n".join(f"  {line}" for line in advice)
    return f"{fields(pairs)}\n\n{_stages(estimates)}\n" + (
        f"\nto cut, with --effort {effort}:\n{lines}" if advice else ""
    )


def _counted(value: float) -> str:
    """Return a number with three digits, or all those before its point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _sample(estimate: CompileEstimate) -> str:
    """Return what a sample costs before and after, and when the compile has paid for itself."""
    from budc.compiler.planning.payback import payback

    cost = payback(estimate)
    text = f"{cost.full:,.0f} forwards of every step, {_counted(cost.policy)} under the policy"
    if cost.samples is None:
        return f"{text}: nothing is saved"
    return f"{text}; the compile has paid for itself after {cost.samples:,} samples"


def _devices(estimate: CompileEstimate) -> str:
    """Return how long a compile takes on every device of the catalogue, a line each."""
    from budc.compiler.planning.on_devices import on_devices

    return "\n".join(
        f"{duration(there.hours)} on {name}"
        + ("" if there.fits else f", where one sample does not fit ({there.memory:.0%} of its memory)")
        for name, there in on_devices(estimate).items()
    )


def _stages(estimates: Mapping[str, CompileEstimate]) -> str:
    """Return the forwards of every stage, an effort a column, and the hours of the search and of the report."""
    columns = list(estimates.values())
    stages = sorted({stage for each in columns for stage in each.stages}, key=STAGES.index)
    rows = [[stage, *(f"{each.stages.get(stage, 0):,}" for each in columns)] for stage in stages]
    rows.append(["all forwards", *(f"{each.forwards:,}" for each in columns)])
    rows.append(["hours without report", *(number(each.hours(each.search_forwards)) for each in columns)])
    rows.append(["hours of the report", *(number(each.hours(each.stages["report"])) for each in columns)])
    return table(("forwards by effort", *estimates), rows)


def record(
    estimates: Mapping[str, CompileEstimate], effort: str, device: Device | None, advice: list[str]
) -> dict[str, Any]:
    """Return what a compile will cost as one JSON object: with `effort`, and with each."""
    from budc.compiler.planning.on_devices import on_devices
    from budc.compiler.planning.payback import payback

    estimate = estimates[effort]
    settings, cost = estimate.settings, estimate.cost
    return {
        "model": settings.profile.name,
        "nfe": settings.nfe,
        "effort": effort,
        "forwards": estimate.forwards,
        "parts": estimate.stages,
        "flopsPerForward": cost.flops,
        "reuseFlops": cost.reuse_flops,
        "memory": {
            "weights": estimate.weights,
            "activations": cost.activations,
            "residual": cost.residual,
            "gradients": estimate.gradients,
        },
        "sample": payback(estimate)._asdict(),
        "devices": {
            name: {"hours": there.hours, "fits": there.fits} for name, there in on_devices(estimate).items()
        },
        "device": device.name if device else None,
        "secondsPerForward": estimate.seconds,
        "measured": estimate.measured,
        "hours": estimate.hours(),
        "efforts": {
            name: {
                "forwards": each.forwards,
                "parts": each.stages,
                "hours": each.hours(),
                "hoursWithoutReport": each.hours(each.search_forwards),
            }
            for name, each in estimates.items()
        },
        "toCut": advice,
    }
