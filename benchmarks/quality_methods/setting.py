"""What every method of the comparison is given: an embedded model, its solver, two prompt sets and their full runs.

The calibration prompts are for fitting and searching; the held-out prompts are for the figures and nothing else.
Noise seeds are those of a compile, so the two sets share none.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import torch

from budc.compiler.comparison import setting as comparison
from budc.compiler.comparison.setting import Samples
from budc.compiler.denoisers.batched import BatchedDenoiser
from budc.compiler.evaluation.reference import encode_prompts
from budc.compiler.models.denoiser import ModelDenoiser
from budc.compiler.models.model import load_model
from budc.compiler.rollouts.reference_run import reference_run
from budc.compiler.storage.journal import Journal
from budc.policies.profile import find_weights, load_profile, read_prompts
from budc.policies.samples import CALIBRATION_SEED, HELD_OUT_SEED

__all__ = ["Samples", "Setting"]


class Setting(comparison.Setting):
    """One model of the comparison; `folder` keeps its full runs, so that they are computed once."""

    denoiser: ModelDenoiser

    def __init__(self, name: str, folder: Path, calibration: int, held_out: int) -> None:
        self.name = name
        self.folder = folder
        profile = load_profile(name)
        model = load_model(profile, find_weights(profile, None), torch.device("cpu"))
        self._held_out_size = held_out
        super().__init__(
            model,
            model.sampler(profile.steps),
            lambda _: self._samples(
                "calibration", profile.prompts.calibration, calibration, CALIBRATION_SEED
            ),
        )

    @cached_property
    def held_out(self) -> Samples:
        """The first prompts of the profile's held-out file."""
        return self._samples(
            "held-out", self.model.profile.prompts.held_out, self._held_out_size, HELD_OUT_SEED
        )

    def _samples(self, label: str, path: Path | str, size: int, first_seed: int) -> Samples:
        prompts = tuple(read_prompts(path))[:size]
        if len(prompts) < size:
            raise ValueError(f"{path}: {len(prompts)} prompts, {size} are needed")
        conditions = encode_prompts(self.model, prompts, range(first_seed, first_seed + size))
        with Journal(self.folder / f"{label}-{size}", f"{self.name} {label} {size}") as journal:
            run = reference_run(BatchedDenoiser(self.denoiser, conditions), self.form, journal, label)
        return Samples(conditions, run)
