"""What a compile will cost, as a page of text or as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from budc.cli.output.duration import duration
from budc.cli.output.tables import fields, number, table

if TYPE_CHECKING:
    from budc.compiler.planning.devices import Device
    from budc.compiler.planning.estimate import CompileEstimate


def page(estimate: CompileEstimate, device: Device | None, advice: list[str]) -> str:
    """Return what a compile will cost as a page of text."""
    from budc.compiler.planning.estimate import UTILISATION

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
    rows = [[stage, f"{count:,}", number(estimate.hours(count))] for stage, count in estimate.stages.items()]
    rows.append(["total", f"{estimate.forwards:,}", number(estimate.hours())])
    stages = table(("part", "forwards", "hours"), rows)
    lines = "\n".join(f"  {line}" for line in advice)
    return f"{fields(pairs)}\n\n{stages}\n" + (f"\nto cut:\n{lines}" if advice else "")


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


def record(estimate: CompileEstimate, device: Device | None, advice: list[str]) -> dict[str, Any]:
    """Return what a compile will cost as one JSON object."""
    from budc.compiler.planning.on_devices import on_devices
    from budc.compiler.planning.payback import payback

    settings, cost = estimate.settings, estimate.cost
    return {
        "model": settings.profile.name,
        "nfe": settings.nfe,
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
        "toCut": advice,
    }
