"""What `budc plan` is asked for: a compile, and the machine that it is to run on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from budc.schema.errors import UsageError

if TYPE_CHECKING:
    from budc.compiler.asked_loss import Loss
    from budc.compiler.planning.devices import Device
    from budc.compiler.planning.forwards import CompileSettings
    from budc.compiler.selection.stages import Trained
    from budc.compiler.shapes import OutputSize


@dataclass(frozen=True)
class PlanRequest:
    """The compile whose cost is asked for, of the effort that is; on a device, or with a forward timed of a folder."""

    settings: CompileSettings
    device: Device | None
    memory: int | None
    timed: Path | None
    shards: int
    workers: int
    proxy: OutputSize | None
    """The size of --proxy, whose cost is not in the settings yet."""


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


def plan_request(
    device: str | None,
    memory: float | None,
    timed: bool,
    weights: Path | None,
    shards: int,
    workers: int,
    **settings: Any,
) -> PlanRequest:
    """Return what the flags of `budc plan` ask for, with everything refused that can be without a model library.

    `settings` are the flags that say what is compiled; `memory` is in GB.

    Raises:
        BudcError: flags that contradict each other, or a model, device, budget or engine that there is not.
    """
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
    return PlanRequest(asked, chosen, own, folder, shards, workers, smaller)


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
