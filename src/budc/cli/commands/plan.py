"""`budc plan`: forwards, device memory and hours of a compile, before anyone pays for them."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from budc.cli.dependencies import MODEL_PACKAGES, quiet_libraries, require
from budc.cli.output.tables import fields, table
from budc.schema.errors import UsageError, WeightsMissing

if TYPE_CHECKING:
    from budc.compiler.planning.devices import Device
    from budc.compiler.planning.estimate import CompileEstimate
    from budc.policies.profile import ModelProfile


@click.command("plan")
@click.option("--model", required=True, metavar="NAME", help="Model profile; `budc models` lists them.")
@click.option("--budget", required=True, metavar="10|2.8x", help="As for `budc compile`.")
@click.option("--steps", type=click.IntRange(1, 1000), help="Sampler steps; default the profile's.")
@click.option("--search", default="joint", show_default=True, metavar="NAME", help="Search algorithm.")
@click.option("--align", is_flag=True, help="With what `--align` costs.")
@click.option(
    "--weights", type=click.Path(path_type=Path), metavar="DIR", help="Measure a forward of this folder."
)
@click.option("--device", "name", metavar="h100", help="A device of the table instead of this machine.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def plan_command(
    model: str,
    budget: str,
    steps: int | None,
    search: str,
    align: bool,
    weights: Path | None,
    name: str | None,
    as_json: bool,
) -> None:
    """Say what a compile will cost: forwards, device memory, hours; and what would make it cheaper.

    FLOPs are counted from the architecture alone. Where weights are here and no --device is given, one forward is
    timed on this machine.
    """
    require(*MODEL_PACKAGES)
    if weights is not None and name is not None:
        raise UsageError(
            "--weights measures a forward on this machine, --device asks for another one's", remedy="give one"
        )
    with contextlib.redirect_stdout(sys.stderr):
        from budc.compiler.budget import parse_budget
        from budc.compiler.planning.advice import advise
        from budc.compiler.planning.cost import forward_cost, gradient_memory
        from budc.compiler.planning.devices import device as named
        from budc.compiler.planning.estimate import estimate_compile
        from budc.compiler.planning.forwards import CompileSettings
        from budc.compiler.selection.split import check_arbitrated
        from budc.policies.profile import load_profile

        quiet_libraries()
        profile = load_profile(model)
        wanted = steps or profile.steps
        nfe = parse_budget(budget, wanted, len(profile.denoisers))
        check_arbitrated(search, align=align)
        target = named(name) if name else None
        folder = None if target else _here(profile, weights)
        cost = forward_cost(profile, folder)
        seconds = _measured(profile, folder) if folder else None
        gradients = gradient_memory(profile, folder) if align else 0
        settings = CompileSettings(profile, nfe, wanted, search, align)
        plan = estimate_compile(settings, cost, target, seconds, gradients)
        advice = advise(plan, target)
    if as_json:
        click.echo(json.dumps(_record(plan, target, advice), indent=1))
        return
    click.echo(_page(plan, target, wanted, advice))


def _here(profile: ModelProfile, weights: Path | None) -> Path | None:
    from budc.policies.profile import find_weights

    try:
        return find_weights(profile, weights)
    except WeightsMissing:
        if weights is not None:
            raise
        return None


def _measured(profile: ModelProfile, folder: Path) -> float:
    from budc.compiler.models.model import default_device, load_model
    from budc.compiler.planning.timing import forward_seconds

    return forward_seconds(load_model(profile, folder, default_device()))


def _page(plan: CompileEstimate, device: Device | None, steps: int, advice: list[str]) -> str:
    from budc.compiler.planning.estimate import UTILISATION

    cost = plan.cost
    if plan.seconds is None:
        pace = "not known: name a --device, or give --weights to time a forward here"
    elif plan.measured:
        pace = f"{plan.seconds:.4g} s a forward, timed on this machine"
    else:
        assert device is not None
        pace = f"{plan.seconds:.3g} s a forward, if {device.name} reaches {UTILISATION:.0%} of its peak"
    pairs = [
        (
            "model",
            f"{plan.settings.profile.title}, {cost.parameters / 1e9:.3g} billion parameters a denoiser",
        ),
        ("budget", f"{plan.settings.nfe} of {steps} steps"),
        ("a forward", f"{cost.flops / 1e12:,.3g} TFLOPs; reused {cost.reuse_flops / cost.flops:.2%} of it"),
        (
            "memory",
            f"{plan.weights / 1e9:.3g} GB weights, {cost.activations / 1e9:.3g} GB activations a sample, "
            f"{cost.residual / 1e6:.3g} MB a residual"
            + (f", about {plan.gradients / 1e9:.3g} GB for a sample's gradient" if plan.gradients else ""),
        ),
        ("pace", pace),
    ]
    rows = [[part, f"{count:,}", _hours(plan.hours(count))] for part, count in plan.stages.items()]
    rows.append(["total", f"{plan.forwards:,}", _hours(plan.hours())])
    parts = table(("part", "forwards", "hours"), rows)
    lines = "\n".join(f"  {line}" for line in advice)
    return f"{fields(pairs)}\n\n{parts}\n" + (f"\nto cut:\n{lines}" if advice else "")


def _hours(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _record(plan: CompileEstimate, device: Device | None, advice: list[str]) -> dict[str, Any]:
    cost = plan.cost
    return {
        "model": plan.settings.profile.name,
        "nfe": plan.settings.nfe,
        "forwards": plan.forwards,
        "parts": plan.stages,
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
