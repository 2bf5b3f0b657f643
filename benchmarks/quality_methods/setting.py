"""What every method of the comparison is given: a model, its solver, two prompt sets and their full runs.

The calibration prompts are for fitting and searching; the held-out prompts are for the figures and nothing else.
Noise seeds are those of a compile, so the two sets share none.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from budc.compiler.denoisers.batched import BatchedDenoiser
from budc.compiler.denoisers.conditioning import Conditioning
from budc.compiler.evaluation.reference import encode_prompts
from budc.compiler.models.denoiser import ModelDenoiser
from budc.compiler.models.model import LoadedModel, load_model
from budc.compiler.rollouts.linear_form import LinearForm, linear_form
from budc.compiler.rollouts.reference_run import ReferenceRun, reference_run
from budc.compiler.storage.journal import Journal
from budc.policies.profile import find_weights, load_profile, read_prompts
from budc.policies.samples import CALIBRATION_SEED, HELD_OUT_SEED


@dataclass(frozen=True)
class Samples:
    """A prompt set: the prompts, their embeddings and noise, and their full run."""

    prompts: tuple[str, ...]
    conditions: Conditioning
    run: ReferenceRun

    def __len__(self) -> int:
        return len(self.prompts)

    def part(self, first: int, last: int) -> Samples:
        """Return the samples first..last-1."""
        return Samples(
            self.prompts[first:last], self.conditions.part(first, last), self.run.part(first, last)
        )


class Setting:
    """One model of the comparison; `folder` keeps its full runs, so that they are computed once."""

    def __init__(self, name: str, folder: Path, calibration: int, held_out: int) -> None:
        self.name = name
        self.folder = folder
        self._sizes = {"calibration": calibration, "held-out": held_out}
        profile = load_profile(name)
        self.model: LoadedModel = load_model(profile, find_weights(profile, None), torch.device("cpu"))
        self.denoiser = ModelDenoiser(self.model)
        self.sampler = self.model.sampler(profile.steps)
        self.form: LinearForm = linear_form(self.model.scheduler, self.sampler.sigmas, self.sampler.timesteps)

    @property
    def branches(self) -> tuple[str, ...]:
        """Guidance branches."""
        return self.model.profile.branches

    @property
    def full_forwards(self) -> int:
        """Transformer forwards of the full run over the calibration prompts."""
        return self.form.steps * len(self.branches) * len(self.calibration)

    @cached_property
    def calibration(self) -> Samples:
        """The first prompts of the profile's calibration file."""
        return self._samples("calibration", self.model.profile.prompts.calibration, CALIBRATION_SEED)

    @cached_property
    def held_out(self) -> Samples:
        """The first prompts of the profile's held-out file."""
        return self._samples("held-out", self.model.profile.prompts.held_out, HELD_OUT_SEED)

    def network(self, samples: Samples) -> BatchedDenoiser:
        """Return the denoiser over a prompt set, with a count of its own."""
        return BatchedDenoiser(self.denoiser, samples.conditions)

    def _samples(self, label: str, path: Path, first_seed: int) -> Samples:
        size, model = self._sizes[label], self.model
        prompts = tuple(read_prompts(path))[:size]
        if len(prompts) < size:
            raise ValueError(f"{path}: {len(prompts)} prompts, {size} are needed")
        conditions = encode_prompts(model, prompts, range(first_seed, first_seed + size))
        with Journal(self.folder / f"{label}-{size}", f"{self.name} {label} {size}") as journal:
            run = reference_run(BatchedDenoiser(self.denoiser, conditions), self.form, journal, label)
        return Samples(prompts, conditions, run)
