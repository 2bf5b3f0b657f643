"""What a compile will cost, as a page of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from budc.cli.output.tables import fields, table
from budc.cli.output.units import between, counted, duration, size

if TYPE_CHECKING:
    from budc.compiler.planning.devices import Device
    from budc.compiler.planning.estimate import CompileEstimate
    from budc.compiler.planning.forwards import ProxyCost
    from budc.compiler.planning.payback import Payback
    from budc.compiler.planning.sibling import Transfer

STAGES = (
    "proxy",
    "calibration",
    "search",
    "race",
    "arbitration",
    "refinement",
    "alignment",
    "refit",
    "report",
)
"""In the order in which a compile goes through them."""


class Planned(NamedTuple):
    """The estimates by effort, the effort that is asked for, the device, its memory, a transfer, and advice."""

    estimates: Mapping[str, CompileEstimate]
    effort: str
    device: Device | None
    memory: int | None
    """Bytes of the device that the compile is to fit; None where none is named."""
    transfer: Transfer | None
    advice: Sequence[str]
    shards: int = 1
    """Of how many jobs that share the full runs the time is asked for as well; 1 for none."""
    workers: int = 1
    """And of how many workers that share the compile."""

    @property
    def estimate(self) -> CompileEstimate:
        """That of the effort that is asked for."""
        return self.estimates[self.effort]


def page(planned: Planned) -> str:
    """Return what a compile will cost with each effort."""
    tables = [_summary(planned), _stages(planned), _phases(planned), _devices(planned.estimate)]
    if planned.advice:
        tables.append(
            "\n".join([f"to cut, with --effort {planned.effort}:", *(f"  {line}" for line in planned.advice)])
        )
    return "\n\n".join(tables)


def _summary(planned: Planned) -> str:
    estimate = planned.estimate
    settings, cost, stages = estimate.settings, estimate.cost, estimate.settings.stages
    if stages.groups > 1:
        searched = f", searched in {stages.groups} groups of {stages.screen}"
    else:
        searched = f", of which the search sees {stages.screen}" if stages.screen < stages.total else ""
    pairs = [
        ("model", f"{settings.profile.title}, {_parameters(cost.parameters)} parameters a denoiser"),
        ("budget", f"{', '.join(map(str, settings.budgets))} of {settings.steps} steps"),
        ("prompts", f"{stages.total} for calibration{searched}; {settings.held_out_size} held out"),
        (
            "a forward",
            f"{_flops(cost.flops)}; reused {cost.reuse_flops / cost.flops:.2%} of it{_pace(planned)}",
        ),
        ("a sample", "\n".join(_samples(estimate))),
    ]
    if settings.proxy is not None:
        pairs.append(("proxy", _proxy(settings.proxy, measured=estimate.measured)))
    if settings.frame_loss:
        pairs.append(
            ("loss", f"LPIPS; the VAE decodes {estimate.decoded:,} samples for it, which nothing here counts")
        )
    if planned.transfer is not None:
        pairs.append(("transfer", _transfer(planned.transfer, estimate.forwards)))
    return fields(pairs)


def _proxy(proxy: ProxyCost, *, measured: bool) -> str:
    from budc.compiler.proxy import in_words
    from budc.compiler.shapes import OutputSize

    size = in_words(OutputSize(proxy.profile.height, proxy.profile.width, proxy.profile.frames))
    return f"{size}: a forward there is {proxy.share:.2%} of one, by {'time' if measured else 'FLOPs'}"


def _parameters(count: int) -> str:
    return f"{count / 1e9:.3g} billion" if count >= 1e8 else f"{count / 1e6:.3g} million"


def _flops(count: float) -> str:
    unit, length = next(
        ((unit, length) for unit, length in (("T", 1e12), ("G", 1e9)) if count >= length), ("M", 1e6)
    )
    return f"{counted(count / length)} {unit}FLOPs"


def _pace(planned: Planned) -> str:
    from budc.compiler.planning.estimate import UTILISATION

    estimate = planned.estimate
    if estimate.seconds is None:
        return ""
    if estimate.measured:
        return f"; {estimate.seconds:.3g} seconds, timed on this machine"
    assert planned.device is not None
    return f"; {estimate.seconds:.2g} seconds if {planned.device.name} reaches {UTILISATION:.0%} of its peak"


def _samples(estimate: CompileEstimate) -> list[str]:
    """Return what a sample costs before and after, and when the compile has paid for itself, a line a budget."""
    from budc.compiler.planning.payback import paybacks

    found = paybacks(estimate)
    lines = [f"{_forwards(estimate, found[0].full)} of every step"]
    return lines + [f"{_forwards(estimate, each.policy)} under the policy{_paid(each)}" for each in found]


def _forwards(estimate: CompileEstimate, forwards: float) -> str:
    took = "" if estimate.seconds is None else f" ({duration(forwards * estimate.seconds / 3600)})"
    return f"{counted(forwards)} forwards{took}"


def _paid(each: Payback) -> str:
    if each.samples is None:
        return ": nothing is saved"
    return f"; the compile has paid for itself after {between(each.samples.least, each.samples.most)} samples"


def _transfer(transfer: Transfer, forwards: int) -> str:
    return (
        f"from {transfer.source}: {transfer.transfer:,} forwards here, and a compile there that costs "
        f"{transfer.compile:,} of these; {1 - transfer.total / forwards:.0%} less than this compile"
    )


def _stages(planned: Planned) -> str:
    """Return the forwards of every stage, an effort a column, and the time of the search and of the report."""
    columns, settings = list(planned.estimates.values()), planned.estimate.settings
    stages = sorted({stage for each in columns for stage in each.stages}, key=STAGES.index)
    rows = []
    for stage in stages:
        counts = [each.stages.get(stage) for each in columns]
        rows.append(
            [stage, *("0" if count is None else between(count.least, count.most) for count in counts)]
        )
    rows.append(["all forwards", *(between(each.total.least, each.total.most) for each in columns)])
    if settings.align:
        rows.append(["recomputed (time only)", *(f"{each.recomputed:,}" for each in columns)])
    if columns[0].seconds is not None:
        rows.append(["time without report", *(duration(each.hours_without_report) for each in columns)])
        rows.append(
            [
                "time of the report",
                *(duration(each.hours(each.stages["report"].expected)) for each in columns),
            ]
        )
    return table(("forwards by effort", *planned.estimates), rows + _several(planned, columns))


def _several(planned: Planned, columns: Sequence[CompileEstimate]) -> list[list[str]]:
    """Return what follows one another, and its time, where several devices share a compile."""
    from budc.compiler.planning.count import Count
    from budc.compiler.planning.shards import sharded
    from budc.compiler.planning.workers import on_workers

    rows: list[list[str]] = []
    for number, of, share in (
        (planned.shards, "shards", sharded),
        (planned.workers, "workers", on_workers),
    ):
        if number == 1:
            continue
        totals = [Count.total(share(each, number).values()) for each in columns]
        bounds = (between(count.least, count.most) for count in totals)
        rows.append([f"one after another, {number} {of}", *bounds])
        if columns[0].seconds is not None:
            lasting = (count.expected + each.recomputed for each, count in zip(columns, totals, strict=True))
            times = [each.hours(count) for each, count in zip(columns, lasting, strict=True)]
            rows.append([f"time of all, {number} {of}", *map(duration, times)])
    return rows


def _phases(planned: Planned) -> str:
    """Return what each phase takes on the device, and how it fits one that is named."""
    estimate = planned.estimate
    headers = ["memory for one sample", "whole", "or"]
    rows = []
    for phase in estimate.phases:
        row = [phase.name, size(phase.whole) if phase.whole else "", f"{size(phase.reduced)} {phase.way}"]
        if planned.memory is not None:
            row.append(phase.fit(planned.memory).value)
        rows.append(row)
    if planned.memory is not None:
        headers.append(f"in {size(planned.memory)}")
    return table(headers, rows, text=headers[2:])


def _devices(estimate: CompileEstimate) -> str:
    """Return how long the compile and a sample take on every device of the catalogue."""
    from budc.compiler.planning.on_devices import on_devices
    from budc.compiler.planning.payback import paybacks

    devices, found = on_devices(estimate), paybacks(estimate)
    if not devices:
        return "too small to fill a device, so its FLOPs do not say how long it takes: --time times a forward here"
    headers = ["device", "this compile", "a sample", *(f"at NFE {each.nfe}" for each in found), "memory"]
    rows = []
    for name, there in devices.items():
        forwards = [found[0].full, *(each.policy for each in found)]
        times = [duration(there.hours), *(duration(count * there.seconds / 3600) for count in forwards)]
        rows.append([name, *times, there.fit.value])
    return table(headers, rows, text=["memory"])
