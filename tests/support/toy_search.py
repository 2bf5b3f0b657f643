"""A search on a denoiser that is a formula, for workers: they import this module by its name."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from budc.compiler.denoisers.conditioning import Conditioning
from budc.compiler.denoisers.denoiser import WeightedGuidance
from budc.compiler.rollouts.schedule import NoiseSchedule
from budc.compiler.selection.task import Task
from budc.compiler.workers.search_tasks import SEARCH, WorkerSearch
from budc.policies.profile import AnnealingSettings


@dataclass
class Bent(WeightedGuidance):
    """A velocity that bends with time and latents; what it caches is its tangent."""

    weights: dict[str, float] = field(default_factory=lambda: {"cond": 1.5, "uncond": -0.5})
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def compute(self, latents, timestep, condition):
        residual = torch.sin(3 * timestep / 1000 + latents * condition)
        return self.reuse(residual, latents, timestep, condition), residual

    def reuse(self, residual, latents, timestep, condition):
        return torch.tanh(residual) - 0.3 * latents


def task(samples=8, steps=7, nfe=3, **fields):
    """Return the task of a search that proposes four candidates at a time."""
    generator = torch.Generator().manual_seed(0)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(steps)
    draw = {name: torch.randn(samples, 2, 3, generator=generator) for name in ("cond", "uncond", "noise")}
    noise = draw.pop("noise")
    given = {
        "schedule": NoiseSchedule.of(scheduler, scheduler.sigmas.tolist(), map(float, scheduler.timesteps)),
        "conditions": Conditioning(draw, noise),
        "nfe": nfe,
        "annealing": AnnealingSettings(temperature_start=0.1, temperature_end=1e-4, protected_fraction=0.3),
        "proposed": 4,
    }
    return Task(denoiser=Bent(), **given | fields)


@dataclass
class Prepare:
    """A worker's setup: the task, and where the journal is."""

    task: Task
    folder: Path
    jobs: int = 1

    def __call__(self, state):
        state[SEARCH] = WorkerSearch(self.task, self.folder, self.jobs)


@dataclass
class KillFirst:
    """A task that ends its worker the first time that it is tried, as `kill -9` does; then it returns 7."""

    marker: Path

    def __call__(self, state):
        try:
            self.marker.touch(exist_ok=False)
        except FileExistsError:
            return 7
        os.kill(os.getpid(), 9)
