"""Advice: which settings would make a compile cheaper."""

from __future__ import annotations

from dataclasses import replace

from budc.compiler.planning.count import Count
from budc.compiler.planning.estimate import CompileEstimate
from budc.compiler.planning.forwards import CompileSettings, forwards_by_stage
from budc.compiler.search import algorithm
from budc.policies.published_masks import masks_for

CHEAPER_SEARCHES = ("nearby", "dp", "known", "uniform")
FEWEST = 3
"""Calibration prompts that leave one to judge by."""
NEED_PUBLISHED_MASKS = ("nearby", "known")


def advise(estimate: CompileEstimate) -> list[str]:
    """Return a line for every change that saves forwards."""
    lines = []
    for label, settings in _alternatives(estimate.settings).items():
        forwards = Count.total(forwards_by_stage(settings, estimate.cost).values()).expected
        if forwards < estimate.forwards:
            lines.append(f"{label}: {forwards:,} forwards, {1 - forwards / estimate.forwards:.0%} less")
    return lines


def _alternatives(settings: CompileSettings) -> dict[str, CompileSettings]:
    half, aligned = settings.calibration_size // 2, settings.align
    alternatives = {}
    if half >= FEWEST:
        alternatives[f"--calibration FILE of {half} prompts"] = replace(settings, prompts=half)
    if aligned:
        alternatives["no --align"] = replace(settings, align=False)
    published = bool(masks_for(settings.profile, settings.steps, settings.budgets[0]))
    for search in CHEAPER_SEARCHES:
        if search != settings.search and (published or search not in NEED_PUBLISHED_MASKS):
            without = " without --align" if aligned and not algorithm(search).arbitrated else ""
            align = aligned and not without
            proxy = settings.proxy if algorithm(search).arbitrated else None
            without += " without --proxy" if proxy is not settings.proxy else ""
            alternatives[f"--search {search}{without}"] = replace(
                settings, search=search, align=align, proxy=proxy
            )
    return alternatives
