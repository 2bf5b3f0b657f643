"""`budc plan`: forwards, device memory and hours of a compile, before it is run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from budc.cli.options import (
    budget_option,
    catalogue_device_option,
    effort_option,
    json_option,
    model_option,
    search_option,
    weights_option,
)
from budc.schema.errors import UsageError, WeightsMissing

if TYPE_CHECKING:
    from budc.compiler.planning.devices import Device
    from budc.policies.profile import ModelProfile


@dataclass(frozen=True)
class PlannedCompile:
    """The compile whose cost is asked for. `folder` holds weights to time a forward of, on this machine."""

    profile: ModelProfile
    nfe: int
    steps: int
    search: str
    effort: str
    align: bool
    device: Device | None
    folder: Path | None


@click.command("plan")
@model_option(required=True)
@budget_option(required=True)
@click.option(
    "--steps", type=click.IntRange(1, 1000), metavar="N", help="Sampler steps; default the profile's."
)
@search_option
@effort_option
@click.option("--align", is_flag=True, help="Include the cost of aligning.")
@weights_option()
@catalogue_device_option
@json_option
def plan_command(as_json: bool, **flags: Any) -> None:
    """Estimate what a compile will cost.

    Prints forwards, device memory and hours for each effort, and what would make the compile cheaper.

    FLOPs are counted from the architecture alone. If the weights are here and no --device is given, one forward is
    timed on this machine.
    """
    from budc.cli.dependencies import MODEL_PACKAGES, model_libraries, require

    planned = _resolve(**flags)
    require(*MODEL_PACKAGES)
    with model_libraries():
        text = _text(planned, as_json)
    click.echo(text)


def _resolve(
    model: str,
    budget: str,
    steps: int | None,
    search: str | None,
    effort: str | None,
    align: bool,
    weights: Path | None,
    device: str | None,
) -> PlannedCompile:
    """Refuse what can be refused without a model library."""
    from budc.compiler.budget import parse_budget
    from budc.compiler.planning.devices import device as device_named
    from budc.compiler.selection.effort import DEFAULT_EFFORT
    from budc.compiler.selection.effort import effort as check_effort
    from budc.compiler.selection.stages import check_arbitrated
    from budc.policies.model_choice import choose_model

    if weights is not None and device is not None:
        raise UsageError(
            "--weights times a forward on this machine, --device asks for another one's", remedy="give one"
        )
    profile = choose_model(model)
    steps, search = steps or profile.steps, search or "joint"
    nfe = parse_budget(budget, steps, len(profile.denoisers))
    effort = effort or DEFAULT_EFFORT
    check_effort(effort)
    check_arbitrated(search, align=align)
    chosen = device_named(device) if device is not None else None
    folder = _folder(profile, weights) if chosen is None else None
    return PlannedCompile(profile, nfe, steps, search, effort, align, chosen, folder)


def _folder(profile: ModelProfile, weights: Path | None) -> Path | None:
    from budc.policies.profile import find_weights

    try:
        return find_weights(profile, weights)
    except WeightsMissing:
        if weights is not None:
            raise
        return None


def _text(planned: PlannedCompile, as_json: bool) -> str:
    from budc.cli.output.plan import page, record
    from budc.compiler.planning.advice import advise
    from budc.compiler.planning.cost import forward_cost, gradient_memory
    from budc.compiler.planning.estimate import estimate_compile
    from budc.compiler.planning.forwards import CompileSettings
    from budc.compiler.selection.effort import EFFORTS

    profile, device = planned.profile, planned.device
    cost = forward_cost(profile, planned.folder)
    seconds = _seconds(profile, planned.folder) if planned.folder else None
    gradients = gradient_memory(profile, planned.folder) if planned.align else 0
    estimates = {
        name: estimate_compile(
            CompileSettings(profile, planned.nfe, planned.steps, planned.search, planned.align, effort=name),
            cost,
            device,
            seconds,
            gradients,
        )
        for name in EFFORTS
    }
    advice = advise(estimates[planned.effort], device)
    if as_json:
        return json.dumps(record(estimates, planned.effort, device, advice), indent=1)
    return page(estimates, planned.effort, device, advice)


def _seconds(profile: ModelProfile, folder: Path) -> float:
    from budc.compiler.models.model import load_model
    from budc.compiler.planning.timing import forward_seconds
    from budc.runtimes.sampling.devices import find_device

    return forward_seconds(load_model(profile, folder, find_device()))
