"""What a compile will cost, counted, or timed on this machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from budc.cli.output.plan import Planned
    from budc.cli.planning.asked import PlanRequest
    from budc.compiler.planning.forwards import ProxyCost
    from budc.compiler.shapes import OutputSize
    from budc.policies.costs import Cost
    from budc.policies.profile import ModelProfile


def estimated(request: PlanRequest) -> Planned:
    """Return what the compile takes with each effort.

    Raises:
        MissingExtra: a forward is to be counted or timed, and the packages for that are missing.
        BudcError: the model cannot be loaded.
    """
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


def _proxy_cost(request: PlanRequest, size: OutputSize, real: Cost, seconds: float | None) -> ProxyCost:
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
    from budc.schema.errors import WeightsMissing
    from budc.schema.printable import printable

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
    from budc.schema.printable import printable

    stage("load", printable(profile.title))
    model = load_model(profile, folder, find_device())
    stage("time", "a forward")
    return forward_seconds(model)
