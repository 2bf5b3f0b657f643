"""Advice: whether a compile fits on the device, and which settings would make it cheaper."""

from __future__ import annotations

from dataclasses import replace

from budc.compiler.planning.devices import Device
from budc.compiler.planning.estimate import CompileEstimate
from budc.compiler.planning.forwards import CompileSettings, forwards_by_stage
from budc.compiler.search import algorithm
from budc.policies.published_masks import masks_for

CHEAPER_SEARCHES = ("nearby", "dp", "known", "uniform")
NEED_PUBLISHED_MASKS = ("nearby", "known")


def advise(estimate: CompileEstimate, device: Device | None) -> list[str]:
    """Return a line if one sample does not fit on `device`, and one for every change that saves forwards."""
    lines = []
    if device is not None and estimate.memory > device.memory:
        need, available = estimate.memory / 1e9, device.memory / 1e9
        lines.append(
            f"one sample takes {need:.0f} GB, {device.name} has {available:.0f}: use a larger device"
        )
    for label, settings in _alternatives(estimate.settings, aligned="alignment" in estimate.stages).items():
        forwards = sum(forwards_by_stage(settings).values())
        if forwards < estimate.forwards:
            lines.append(f"{label}: {forwards:,} forwards, {1 - forwards / estimate.forwards:.0%} less")
    return lines


def _alternatives(settings: CompileSettings, *, aligned: bool) -> dict[str, CompileSettings]:
    half = settings.calibration_size // 2
    settings = replace(settings, align=aligned)
    alternatives = {f"--calibration FILE of {half} prompts": replace(settings, prompts=half)}
    if aligned:
        alternatives["no --align"] = replace(settings, align=False)
    published = bool(masks_for(settings.profile, settings.steps, settings.nfe))
    for search in CHEAPER_SEARCHES:
        if search != settings.search and (published or search not in NEED_PUBLISHED_MASKS):
            without = " without --align" if aligned and not algorithm(search).arbitrated else ""
            alternatives[f"--search {search}{without}"] = replace(settings, search=search)
    return alternatives
