"""Plan: what a compile will cost, before anyone pays for it.

    forwards = full runs of the calibration prompts
             + the search, whose candidates share what they begin with
             + arbitration of finalists on prompts that the search does not see
             + the report: full run, policy, uniform mask and fewer steps on the held-out prompts

A forward is one sample of one branch. How many candidates a search scores depends on their losses; the plan lets it
run on made-up ones, so its part is an estimate and all others are exact. Hours come from a measured forward, or from
counted FLOPs and a share of the device's peak that has to be assumed.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from budc.compiler.cost import Cost
from budc.compiler.devices import Device
from budc.compiler.search import Algorithm, Candidate, Space, algorithm
from budc.compiler.study import FINALISTS
from budc.compiler.task import SEARCH_SHARE
from budc.policies.profile import ModelProfile
from budc.policies.schedules import schedules_for
from budc.runtimes.schedulers import first_steps, passed_sigmas

UTILISATION = 0.4
"""Share of a device's peak that a forward is assumed to reach where none was measured."""


@dataclass(frozen=True)
class Plan:
    """Forwards by part, and how long one takes where that is known: `seconds`, `measured` or assumed."""

    profile: ModelProfile
    nfe: int
    cost: Cost
    parts: dict[str, int]
    seconds: float | None
    measured: bool

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
        return self.weights + self.cost.activations + self.cost.residual

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
) -> Plan:
    """Count the forwards of a compile; `measured` is the seconds that one forward of one sample takes."""
    seconds = measured
    if seconds is None and device is not None:
        seconds = cost.flops / (UTILISATION * device.flops)
    size = calibration or profile.prompts.calibration_size
    parts = forwards(profile, nfe, steps, search, size)
    return Plan(profile, nfe, cost, parts, seconds, measured is not None)


def forwards(profile: ModelProfile, nfe: int, steps: int, search: str, size: int) -> dict[str, int]:
    """Return part -> forwards of a compile that calibrates on `size` prompts."""
    chosen, branches = algorithm(search), len(profile.branches)
    seen = max(1, round(SEARCH_SHARE * size)) if chosen.arbitrated and size > 1 else size
    evaluations, candidates = _searched(profile, nfe, steps, chosen)
    parts = {
        "calibration": steps * size * branches,
        "search": evaluations * seen * branches,
        "arbitration": min(FINALISTS, candidates) * nfe * (size - seen) * branches,
        "report": (steps + 3 * nfe) * profile.prompts.held_out_size * branches,
    }
    return parts


def _searched(profile: ModelProfile, nfe: int, steps: int, chosen: Algorithm) -> tuple[int, int]:
    """Return (computed steps of one sample and branch, candidates) of a search on made-up losses."""
    none = [[[0.0] * steps for _ in range(steps)] for _ in range(steps)]
    space = Space(
        steps=steps,
        nfe=nfe,
        branches=profile.branches,
        defaults=profile.search,
        errors={"trunk-residual": none, "velocity": none},
        schedules=schedules_for(profile, steps, nfe),
        first_steps=_first_steps(profile, steps),
    )
    rng, walk = random.Random(0), chosen.walk(space, random.Random(0))
    losses: dict[str, float] = {}
    prefixes: set[tuple[object, ...]] = set()
    candidates = next(walk)
    while True:
        for candidate in candidates:
            losses.setdefault(candidate.key, rng.random())
            prefixes.update(_prefixes(candidate))
        try:
            candidates = walk.send([losses[candidate.key] for candidate in candidates])
        except StopIteration:
            return len(prefixes), len(losses)


def _first_steps(profile: ModelProfile, steps: int) -> tuple[int, ...]:
    # The checkpoint's scheduler decides; a schedule without a shift is near enough to count candidates.
    boundaries = (profile.experts.boundary,) if profile.experts else ()
    found = first_steps(passed_sigmas(steps), boundaries)
    return tuple(min(max(1, first), steps - 1) for first in found)


def _prefixes(candidate: Candidate) -> list[tuple[object, ...]]:
    computed = candidate.mask.compute_steps
    return [(candidate.rule, candidate.payload, computed[: end + 1]) for end in range(len(computed))]


def cuts(plan: Plan, steps: int, search: str, device: Device | None) -> list[str]:
    """Say what would make the compile cheaper, and by how much; or that it does not fit."""
    found = []
    if device is not None and plan.memory > device.memory:
        need, have = plan.memory / 1e9, device.memory / 1e9
        found.append(f"one sample takes {need:.0f} GB, {device.name} has {have:.0f}: use a larger device")
    size = plan.profile.prompts.calibration_size
    options = {f"--calibration FILE of {size // 2} prompts": (search, size // 2)}
    for cheaper in ("dp", "known", "uniform"):
        if cheaper != search and (cheaper != "known" or schedules_for(plan.profile, steps, plan.nfe)):
            options[f"--search {cheaper}"] = (cheaper, size)
    for label, (name, prompts) in options.items():
        less = sum(forwards(plan.profile, plan.nfe, steps, name, prompts).values())
        if less < plan.forwards:
            found.append(f"{label}: {less:,} forwards, {1 - less / plan.forwards:.0%} less")
    return found
