"""`budc plan`: forwards, device memory and hours of a compile, before it is run."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from budc.cli.options import (
    budget_option,
    catalogue_device_option,
    effort_option,
    engine_option,
    json_option,
    loss_option,
    model_option,
    progress_option,
    proxy_option,
    search_option,
    sweep_option,
    train_option,
    weights_option,
)
from budc.schema.errors import UsageError

if TYPE_CHECKING:
    from budc.cli.output.plan import Planned
    from budc.compiler.asked_loss import Loss
    from budc.compiler.planning.devices import Device
    from budc.compiler.planning.forwards import CompileSettings, ProxyCost
    from budc.compiler.selection.stages import Trained
    from budc.compiler.shapes import OutputSize
    from budc.policies.costs import Cost
    from budc.policies.profile import ModelProfile


@dataclass(frozen=True)
class _Request:
    """The compile whose cost is asked for, of the effort that is; on a device, or with a forward timed of a folder."""

    settings: CompileSettings
    device: Device | None
    memory: int | None
    timed: Path | None
    shards: int
    workers: int
    proxy: OutputSize | None
    """The size of --proxy, whose cost is not in the settings yet."""


@click.command("plan")
@model_option(required=True)
@budget_option()
@sweep_option
@click.option(
    "--steps", type=click.IntRange(1, 1000), metavar="N", help="Sampler steps; default the profile's."
)
@search_option
@effort_option
@proxy_option
@engine_option
@click.option("--align", is_flag=True, help="Include the cost of aligning.")
@train_option
@loss_option
@catalogue_device_option
@click.option(
    "--memory",
    type=click.FloatRange(0, 1e6, min_open=True),
    metavar="GB",
    help="Memory of your device, to see what fits; default that of --device.",
)
@click.option(
    "--shards",
    type=click.IntRange(1, 1000),
    default=1,
    metavar="N",
    help="Also the time where N jobs share the full runs, see --shard of compile.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=1,
    metavar="N",
    help="Also the time where N workers of a Ray cluster share the compile, see --ray of compile.",
)
@click.option("--time", "timed", is_flag=True, help="Time a forward of the weights on this machine.")
@weights_option("the package's own, or the hub cache; with --time")
@progress_option
@json_option
def plan_command(as_json: bool, **flags: Any) -> None:
    """Estimate what a compile will cost.

    Prints forwards, device memory and time, for each effort and on each device that is known, and what would make the
    compile cheaper.

    Costs of the models that the package ships are part of it; those of your own are counted from the architecture.
    """
    from budc.cli.output.plan import page
    from budc.cli.output.plan_record import record

    planned = _planned(_resolve(**flags))
    click.echo(json.dumps(record(planned), indent=1) if as_json else page(planned))


def _resolve(
    device: str | None,
    memory: float | None,
    timed: bool,
    weights: Path | None,
    shards: int,
    workers: int,
    **settings: Any,
) -> _Request:
    """Refuse what can be refused without a model library."""
    from budc.compiler.planning.devices import device as device_named
    from budc.policies.profile import find_weights

    if weights is not None and not timed:
        raise UsageError("--weights: nothing is read of them without --time", remedy="add --time")
    if timed and device is not None:
        raise UsageError(
            "--time times a forward on this machine, --device asks for another one's", remedy="give one"
        )
    flags = _Flags(**settings)
    asked = _settings(flags)
    smaller = None if flags.proxy is None else _proxy(flags.proxy, asked)
    chosen = device_named(device) if device is not None else None
    available = chosen.memory if chosen is not None else None
    folder = find_weights(asked.profile, weights) if timed else None
    own = available if memory is None else round(memory * 1e9)
    return _Request(asked, chosen, own, folder, shards, workers, smaller)


def _proxy(text: str, asked: CompileSettings) -> OutputSize:
    """Return the size of a proxy, refused where no masks are searched there, or the model would round it."""
    from budc.compiler.planning.known_grid import known_grid
    from budc.compiler.proxy import check_grid, check_searched, parse_proxy

    few_masks = asked.engine is not None and asked.engine.masks is not None
    check_searched(asked.search, few_masks=few_masks)
    size = parse_proxy(text, asked.profile)
    if (grid := known_grid(asked.profile)) is not None:
        check_grid(size, grid, asked.profile.name)
    return size


class _Flags(NamedTuple):
    """What the flags say of the compile."""

    model: str
    budget: str | None
    sweep: str | None
    steps: int | None
    search: str | None
    effort: str | None
    proxy: str | None
    engine: str | None
    align: bool
    train: Trained | None
    loss: Loss | None


def _settings(flags: _Flags) -> CompileSettings:
    from budc.compiler.asked_loss import by_lpips
    from budc.compiler.budget import parse_budget
    from budc.compiler.engine import Wishes, check_engine, engine_named, search_for
    from budc.compiler.planning.forwards import CompileSettings
    from budc.compiler.selection.effort import DEFAULT_EFFORT
    from budc.policies.model_choice import choose_model

    if (flags.budget is None) == (flags.sweep is None):
        raise UsageError(
            "no budget given" if flags.budget is None else "both --budget and --sweep given",
            remedy="pass --budget 10 for one policy, or --sweep 6,8,10 for a family",
        )
    if flags.train is not None and not flags.align:
        raise UsageError("--train: says what --align trains", remedy="add --align, or leave it out")
    profile = choose_model(flags.model)
    steps, search = flags.steps or profile.steps, flags.search or "joint"
    source = "budget" if flags.sweep is None else "sweep"
    budgets = [
        parse_budget(text, steps, len(profile.denoisers), source=source)
        for text in (flags.budget or flags.sweep or "").split(",")
    ]
    engine = None if flags.engine is None else engine_named(flags.engine, profile)
    if engine is not None:
        wishes = Wishes(search, align=flags.align, train=flags.train or "both")
        check_engine(engine, steps, budgets, wishes)
    settings = CompileSettings(
        profile,
        tuple(dict.fromkeys(budgets)),
        steps,
        search_for(engine, search),
        flags.align,
        effort=flags.effort or DEFAULT_EFFORT,
        engine=engine,
        train=flags.train or "both",
    )
    # Refused here: what cannot be aligned, too few prompts, and an effort of no known name.
    assert settings.stages
    size = (profile.height, profile.width)
    frame_loss = by_lpips(flags.loss, second_stage=settings.second_stage, size=size)
    return replace(settings, frame_loss=frame_loss)


def _planned(request: _Request) -> Planned:
    from budc.cli.output.plan import Planned
    from budc.compiler.planning.advice import advise
    from budc.compiler.planning.estimate import estimate_compile
    from budc.compiler.planning.sibling import transfer_from_sibling
    from budc.compiler.selection.effort import EFFORTS
    from budc.progress import stage

    asked = request.settings
    cost, seconds = _cost(asked.profile, request.timed, align=asked.align)
    if request.proxy is not None:
        asked = replace(asked, proxy=_proxy_cost(request, request.proxy, cost, seconds))
    stage("plan", "what each effort takes")
    estimates = {
        name: estimate_compile(replace(asked, effort=name), cost, request.device, seconds) for name in EFFORTS
    }
    estimate = estimates[asked.effort]
    transfer = transfer_from_sibling(estimate)
    advice, several = advise(estimate), (request.shards, request.workers)
    return Planned(estimates, asked.effort, request.device, request.memory, transfer, advice, *several)


def _proxy_cost(request: _Request, size: OutputSize, real: Cost, seconds: float | None) -> ProxyCost:
    """Return what a forward costs at the size of a proxy, as a share of one at the real size, by time or by FLOPs."""
    from budc.compiler.planning.forwards import ProxyCost

    profile = size.of(request.settings.profile)
    cost, there = _cost(profile, request.timed, align=False)
    share = cost.flops / real.flops if seconds is None or there is None else there / seconds
    return ProxyCost(profile, cost, share)


def _cost(profile: ModelProfile, timed: Path | None, *, align: bool) -> tuple[Cost, float | None]:
    """Return what a forward costs, and how many seconds it takes here if that is asked for."""
    from budc.cli.dependencies import MODEL_PACKAGES, model_libraries, require
    from budc.policies.costs import shipped_cost

    shipped = shipped_cost(profile)
    if shipped is not None and timed is None:
        return shipped, None
    require(*MODEL_PACKAGES)
    with model_libraries():
        cost = shipped or _counted(profile, align=align)
        return cost, _seconds(profile, timed) if timed is not None else None


def _counted(profile: ModelProfile, *, align: bool) -> Cost:
    """Count a forward of the user's own model, from its folder where that is here."""
    from budc.compiler.planning.cost import model_cost
    from budc.policies.profile import find_weights
    from budc.progress import stage
    from budc.schema.errors import WeightsMissing, printable

    stage("count", printable(f"a forward of {profile.title}"))
    try:
        folder = find_weights(profile, None)
    except WeightsMissing:
        folder = None
    return model_cost(profile, folder, gradients=align)


def _seconds(profile: ModelProfile, folder: Path) -> float:
    from budc.compiler.models.model import load_model
    from budc.compiler.planning.timing import forward_seconds
    from budc.progress import stage
    from budc.runtimes.sampling.devices import find_device
    from budc.schema.errors import printable

    stage("load", printable(profile.title))
    model = load_model(profile, folder, find_device())
    stage("time", "a forward")
    return forward_seconds(model)
