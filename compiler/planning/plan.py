"""Plan: what a compile will cost, before anyone pays for it.

    forwards = full runs of the calibration prompts
             + the search, whose candidates share what they begin with
             + arbitration of finalists on prompts that the search does not see
             + the winner's coefficients, fitted once more on all prompts; or its alignment, where that is asked for:
               full runs of more pairings of prompts and noise, training, a backward counted as two, and judging it
             + the report: full run, policy, uniform mask and fewer steps on the held-out prompts

A forward is one sample of one branch. How many candidates a search scores depends on their losses; the plan lets it
run on made-up ones, so its part is an estimate and all others are exact. Hours come from a measured forward, or from
counted FLOPs and a share of the device's peak that has to be assumed.
"""

from __future__ import annotations

from dataclasses import dataclass

from budc.compiler.planning.cost import Cost
from budc.compiler.planning.devices import Device
from budc.compiler.planning.dry_run import dry_run
from budc.compiler.search import algorithm
from budc.compiler.selection.alignment import epochs
from budc.compiler.selection.study import FINALISTS
from budc.compiler.selection.task import searched_on
from budc.compiler.training.augmentation import PAIRINGS
from budc.compiler.training.trainer import training_forwards
from budc.policies.profile import ModelProfile
from budc.policies.published_masks import masks_for

UTILISATION = 0.4
"""Share of a device's peak that a forward is assumed to reach where none was measured."""


@dataclass(frozen=True)
class Plan:
    """Forwards by part, and how long one takes where that is known: `seconds`, `measured` or assumed.

    `gradients` are the bytes that one sample's gradient keeps beside the weights, 0 where none is taken.
    """

    profile: ModelProfile
    nfe: int
    cost: Cost
    parts: dict[str, int]
    seconds: float | None
    measured: bool
    gradients: int = 0

    @property
    def forwards(self) -> int:
        """All of them."""
        return sum(self.parts.values())

    @property
    def weights(self) -> int:
        """Bytes of all denoisers: those that share a run lie on the device together."""
        return len(self.profile.denoisers) * self.cost.weights

    @property
    def memory(self) -> int:
        """Bytes of device memory that one sample takes: the denoisers, activations, a branch's residual."""
        return self.weights + max(self.cost.activations, self.gradients) + self.cost.residual

    def hours(self, forwards: int | None = None) -> float | None:
        """How long some forwards, or all, take on the device."""
        count = self.forwards if forwards is None else forwards
        return None if self.seconds is None else count * self.seconds / 3600


def make_plan(
    profile: ModelProfile,
    nfe: int,
    steps: int,
    search: str,
    cost: Cost,
    device: Device | None = None,
    measured: float | None = None,
    calibration: int | None = None,
    gradients: int | None = None,
) -> Plan:
    """Count the forwards of a compile.

    `measured` is the seconds that one forward of one sample takes; `gradients` are the bytes of `gradient_memory`, for
    a compile that aligns.
    """
    seconds = measured
    if seconds is None and device is not None:
        seconds = cost.flops / (UTILISATION * device.flops)
    size = calibration or profile.prompts.calibration_size
    parts = forwards(profile, nfe, steps, search, size, align=gradients is not None)
    return Plan(profile, nfe, cost, parts, seconds, measured is not None, gradients or 0)


def forwards(
    profile: ModelProfile, nfe: int, steps: int, search: str, size: int, *, align: bool = False
) -> dict[str, int]:
    """Return part -> forwards of a compile that calibrates on `size` prompts.

    Raises:
        UsageError: so few prompts leave none to judge an alignment by.
    """
    chosen = algorithm(search)
    seen = searched_on(search, size, judged=align)
    evaluations, candidates = dry_run(profile, nfe, steps, chosen)
    aligned = align and seen < size
    learned, judged = (min(PAIRINGS if aligned else 1, part) * part for part in (seen, size - seen))
    parts = {
        "calibration": steps * size,
        "search": evaluations * seen,
        "arbitration": min(FINALISTS, candidates) * nfe * judged,
    }
    if aligned:
        training = training_forwards(nfe, learned, judged, epochs(nfe))
        parts["alignment"] = steps * (learned + judged - size) + training + nfe * judged
    elif seen < size:
        parts["refit"] = nfe * size
    parts["report"] = (steps + 3 * nfe) * profile.prompts.held_out_size
    return {part: count * len(profile.branches) for part, count in parts.items()}


def savings(plan: Plan, steps: int, search: str, device: Device | None) -> list[str]:
    """Say what would make the compile cheaper, and by how much; or that it does not fit."""
    found = []
    if device is not None and plan.memory > device.memory:
        need, have = plan.memory / 1e9, device.memory / 1e9
        found.append(f"one sample takes {need:.0f} GB, {device.name} has {have:.0f}: use a larger device")
    size = plan.profile.prompts.calibration_size
    align = "alignment" in plan.parts
    options = {f"--calibration FILE of {size // 2} prompts": (search, size // 2, align)}
    if align:
        options["no --align"] = (search, size, False)
    for cheaper in ("nearby", "dp", "known", "uniform"):
        needs_schedules = cheaper in ("nearby", "known")
        if cheaper != search and (not needs_schedules or masks_for(plan.profile, steps, plan.nfe)):
            without = " without --align" * (align and not algorithm(cheaper).arbitrated)
            options[f"--search {cheaper}{without}"] = (cheaper, size, align)
    for label, (name, prompts, aligned) in options.items():
        less = sum(forwards(plan.profile, plan.nfe, steps, name, prompts, align=aligned).values())
        if less < plan.forwards:
            found.append(f"{label}: {less:,} forwards, {1 - less / plan.forwards:.0%} less")
    return found
