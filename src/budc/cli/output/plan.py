"""What a compile will cost, as a page of text or as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from budc.cli.output.tables import fields, number, table

if TYPE_CHECKING:
    from budc.compiler.planning.devices import Device
    from budc.compiler.planning.plan import Plan


def page(plan: Plan, device: Device | None, steps: int, advice: list[str]) -> str:
    """Return what a compile will cost as a page of text."""
    from budc.compiler.planning.plan import UTILISATION

    cost = plan.cost
    if plan.seconds is None:
        pace = "not known: name a --device, or give --weights to time a forward here"
    elif plan.measured:
        pace = f"{plan.seconds:.4g} s a forward, timed on this machine"
    else:
        assert device is not None
        pace = f"{plan.seconds:.3g} s a forward, if {device.name} reaches {UTILISATION:.0%} of its peak"
    pairs = [
        ("model", f"{plan.profile.title}, {cost.parameters / 1e9:.3g} billion parameters a denoiser"),
        ("budget", f"{plan.nfe} of {steps} steps"),
        ("a forward", f"{cost.flops / 1e12:,.3g} TFLOPs; reused {cost.reuse_flops / cost.flops:.2%} of it"),
        (
            "memory",
            f"{plan.weights / 1e9:.3g} GB weights, {cost.activations / 1e9:.3g} GB activations a sample, "
            f"{cost.residual / 1e6:.3g} MB a residual"
            + (f", about {plan.gradients / 1e9:.3g} GB for a sample's gradient" if plan.gradients else ""),
        ),
        ("pace", pace),
    ]
    rows = [[part, f"{count:,}", number(plan.hours(count))] for part, count in plan.parts.items()]
    rows.append(["total", f"{plan.forwards:,}", number(plan.hours())])
    parts = table(("part", "forwards", "hours"), rows)
    lines = "\n".join(f"  {line}" for line in advice)
    return f"{fields(pairs)}\n\n{parts}\n" + (f"\nto cut:\n{lines}" if advice else "")


def record(plan: Plan, device: Device | None, advice: list[str]) -> dict[str, Any]:
    """Return what a compile will cost as one JSON object."""
    cost = plan.cost
    return {
        "model": plan.profile.name,
        "nfe": plan.nfe,
        "forwards": plan.forwards,
        "parts": plan.parts,
        "flopsPerForward": cost.flops,
        "reuseFlops": cost.reuse_flops,
        "memory": {
            "weights": plan.weights,
            "activations": cost.activations,
            "residual": cost.residual,
            "gradients": plan.gradients,
        },
        "device": device.name if device else None,
        "secondsPerForward": plan.seconds,
        "measured": plan.measured,
        "hours": plan.hours(),
        "toCut": advice,
    }
