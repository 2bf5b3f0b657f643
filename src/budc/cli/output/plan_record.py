"""What a compile will cost, as one JSON object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from budc.cli.output.plan import Planned

if TYPE_CHECKING:
    from budc.compiler.planning.count import Count
    from budc.compiler.planning.estimate import CompileEstimate
    from budc.compiler.planning.forwards import ProxyCost


def record(planned: Planned) -> dict[str, Any]:
    """Return all of a plan: with the effort that is asked for, and with each."""
    from budc.compiler.planning.on_devices import on_devices
    from budc.compiler.planning.payback import paybacks

    estimate, device, transfer = planned.estimate, planned.device, planned.transfer
    settings = estimate.settings
    return {
        "model": settings.profile.name,
        "budgets": settings.budgets,
        "steps": settings.steps,
        "search": settings.search,
        "for": None if settings.engine is None else settings.engine.name,
        "align": settings.align,
        "train": settings.train if settings.align else None,
        "loss": ("lpips" if settings.frame_loss else "latents") if settings.second_stage else None,
        "decodedForLoss": estimate.decoded,
        "effort": planned.effort,
        "proxy": None if settings.proxy is None else _proxy(settings.proxy),
        "prompts": {
            "calibration": settings.stages.total,
            "searched": settings.stages.screen * settings.stages.groups,
            "groups": settings.stages.groups,
            "heldOut": settings.held_out_size,
        },
        **_forwards(estimate, planned),
        "cost": msgspec.to_builtins(estimate.cost),
        "memory": [
            {
                "phase": phase.name,
                "whole": phase.whole or None,
                "reduced": phase.reduced,
                "way": phase.way,
                "fit": None if planned.memory is None else phase.fit(planned.memory).value,
            }
            for phase in estimate.phases
        ],
        "samples": [
            {**each._asdict(), "samples": None if each.samples is None else each.samples._asdict()}
            for each in paybacks(estimate)
        ],
        "devices": {
            name: {**there._asdict(), "fit": there.fit.value} for name, there in on_devices(estimate).items()
        },
        "device": device.name if device else None,
        "deviceMemory": planned.memory,
        "secondsPerForward": estimate.seconds,
        "measured": estimate.measured,
        "transfer": None if transfer is None else {**transfer._asdict(), "total": transfer.total},
        "efforts": {name: _forwards(each, planned) for name, each in planned.estimates.items()},
        "toCut": planned.advice,
    }


def _proxy(proxy: ProxyCost) -> dict[str, Any]:
    size = {name: getattr(proxy.profile, name) for name in ("height", "width", "frames")}
    return {**size, "flops": proxy.cost.flops, "share": proxy.share}


def _forwards(estimate: CompileEstimate, planned: Planned) -> dict[str, Any]:
    from budc.compiler.planning.shards import sharded
    from budc.compiler.planning.workers import on_workers

    return {
        "forwards": estimate.total._asdict(),
        "parts": {stage: count._asdict() for stage, count in estimate.stages.items()},
        "recomputed": estimate.recomputed,
        "hours": estimate.hours(),
        "hoursWithoutReport": estimate.hours_without_report,
        "shards": _together(estimate, planned.shards, sharded(estimate, planned.shards)),
        "workers": _together(estimate, planned.workers, on_workers(estimate, planned.workers)),
    }


def _together(estimate: CompileEstimate, number: int, stages: Mapping[str, Count]) -> dict[str, Any] | None:
    """Return what follows one another where so many devices share a compile; None for one."""
    from budc.compiler.planning.count import Count

    if number == 1:
        return None
    total = Count.total(stages.values())
    return {
        "number": number,
        "forwards": total._asdict(),
        "hours": estimate.hours(total.expected + estimate.recomputed),
    }
