"""What every method is given: a denoiser, its sampler, and calibration prompts with their full run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from budc.compiler.denoisers.batched import BatchedDenoiser
from budc.compiler.denoisers.conditioning import Conditioning
from budc.compiler.denoisers.denoiser import Denoiser
from budc.compiler.models.denoiser import model_denoiser
from budc.compiler.models.model import LoadedModel
from budc.compiler.rollouts.linear_form import LinearForm, linear_form
from budc.compiler.rollouts.reference_run import ReferenceRun
from budc.policies.profile import AnnealingSettings
from budc.runtimes.sampling.families import family_named
from budc.schema.policy import SamplerBinding


@dataclass(frozen=True)
class Samples:
    """Prompts that are encoded, their noise, and their full run."""

    conditions: Conditioning
    run: ReferenceRun

    def __len__(self) -> int:
        return len(self.conditions)

    def part(self, first: int, last: int) -> Samples:
        """Return the samples first..last-1."""
        return Samples(self.conditions.part(first, last), self.run.part(first, last))


class Setting(ABC):
    """A denoiser on a sampler; `calibrate` runs every step on the calibration prompts, once a method needs them."""

    def __init__(
        self, scheduler: Any, sampler: SamplerBinding, calibrate: Callable[[Setting], Samples]
    ) -> None:
        self.scheduler = scheduler
        self.sampler = sampler
        self.form: LinearForm = linear_form(scheduler, sampler.sigmas, sampler.timesteps)
        self._calibrate = calibrate

    @property
    @abstractmethod
    def name(self) -> str:
        """What progress calls it."""

    @property
    @abstractmethod
    def denoiser(self) -> Denoiser:
        """What is sampled with."""

    @property
    @abstractmethod
    def annealing(self) -> AnnealingSettings:
        """Settings of the paper's search."""

    @property
    def batched(self) -> bool:
        """Whether the guidance branches are one batch, so that they compute at the same steps."""
        return False

    @abstractmethod
    def sampler_of(self, steps: int) -> SamplerBinding:
        """Return its own sampler with so many steps."""

    @cached_property
    def calibration(self) -> Samples:
        """The calibration prompts."""
        return self._calibrate(self)

    @property
    def branches(self) -> tuple[str, ...]:
        """Guidance branches."""
        return tuple(self.denoiser.branches)

    @property
    def full_forwards(self) -> int:
        """Transformer forwards of the full run over the calibration prompts."""
        return self.form.steps * len(self.branches) * len(self.calibration)

    def network(self, samples: Samples) -> BatchedDenoiser:
        """Return the denoiser over a prompt set, with a count of its own."""
        return self.network_of(samples.conditions)

    def network_of(self, conditions: Conditioning) -> BatchedDenoiser:
        """The same, for prompts that have no full run yet."""
        return BatchedDenoiser(self.denoiser, conditions)


class ModelSetting(Setting):
    """The same of a model folder, for methods that look into its transformer."""

    def __init__(
        self, model: LoadedModel, sampler: SamplerBinding, calibrate: Callable[[Setting], Samples]
    ) -> None:
        self.model = model
        super().__init__(model.scheduler, sampler, calibrate)

    @property
    def name(self) -> str:
        """The profile's."""
        return self.model.profile.name

    @cached_property
    def denoiser(self) -> Denoiser:
        """The model's denoiser, or its experts as one."""
        return model_denoiser(self.model)

    @property
    def branches(self) -> tuple[str, ...]:
        """The profile's."""
        return self.model.profile.branches

    @property
    def annealing(self) -> AnnealingSettings:
        """The profile's."""
        return self.model.profile.search

    @property
    def batched(self) -> bool:
        """As the transformer's family is."""
        return bool(family_named(next(iter(self.model.profile.denoisers.values()))).batched)

    def sampler_of(self, steps: int) -> SamplerBinding:
        """Return the profile's sampler."""
        return self.model.sampler(steps)
