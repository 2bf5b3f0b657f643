"""What every method of the comparison is given: a model, its solver, two prompt sets and their full runs.

The calibration prompts are for fitting and searching; the held-out prompts are for the figures and nothing else.
Noise seeds are those of a compile, so the two sets share none.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import msgspec

from budc.compiler.comparison import setting as comparison
from budc.compiler.comparison.setting import Samples
from budc.compiler.denoisers.batched import BatchedDenoiser
from budc.compiler.emit import versions
from budc.compiler.evaluation.reference import encode_samples
from budc.compiler.models.binding import model_binding
from budc.compiler.models.denoiser import ModelDenoiser
from budc.compiler.models.model import load_model
from budc.compiler.rollouts.reference_run import reference_run
from budc.compiler.storage.journal import Journal
from budc.compiler.workers.model_workers import ModelWorkers
from budc.compiler.workers.pool import Pool
from budc.policies.model_choice import choose_model
from budc.policies.profile import ModelProfile, find_weights, prompt_path
from budc.policies.prompt_sets import PromptSource, read_samples
from budc.policies.samples import Sample
from budc.progress import hashing
from budc.runtimes.sampling.devices import device_name, find_device
from budc.schema.canonical import digest
from budc.schema.digest_cache import DigestCache
from quality_methods.draws import drawn

__all__ = ["Samples", "Setting", "folder_of"]


def folder_of(work: Path, choice: str, weights: Path | None = None, device: str | None = None) -> Path:
    """Return the folder of a model's measurements: NAME of an embedded model on the CPU, else NAME and a digest.

    The digest is that of profile, weights, packages and device, so that no measurement is taken for another's.
    """
    profile, place = choose_model(choice), find_device(device)
    if profile.embedded and weights is None and place.type == "cpu":
        return work / profile.name
    binding = model_binding(profile, find_weights(profile, weights), DigestCache.of_user(watch=hashing))
    parts = [msgspec.to_builtins(part) for part in (profile, binding)]
    content = {"model": parts, "versions": versions(), "device": device_name(place)}
    return work / f"{profile.name}-{digest(content)[7:19]}"


class Setting(comparison.ModelSetting):
    """One model of the comparison; `folder` keeps its full runs, so that they are computed once.

    `choice` names the model as `--model` of budc does. Numbers that are None are the profile's. The workers of a `pool`
    make the full runs. Other draws than 0 take further prompts of the same files (`quality_methods.draws`).
    """

    denoiser: ModelDenoiser

    def __init__(
        self,
        choice: str,
        folder: Path,
        calibration: int | None,
        held_out: int | None,
        *,
        weights: Path | None = None,
        device: str | None = None,
        steps: int | None = None,
        pool: Pool | None = None,
        draw: int = 0,
    ) -> None:
        profile = choose_model(choice)
        self.folder = folder
        self.draw = draw
        self._sizes = calibration or None, held_out or None
        self._again = choice, weights, device, steps
        model = load_model(profile, find_weights(profile, weights), find_device(device))
        self._workers = None if pool is None else ModelWorkers(pool, model)
        super().__init__(
            model,
            model.sampler(steps or profile.steps),
            lambda _: self._samples("calibration", self._read()[0]),
        )

    def on(self, calibration: int) -> Setting:
        """Return the same with so many calibration prompts."""
        choice, weights, device, steps = self._again
        return Setting(
            choice,
            self.folder,
            calibration,
            self._sizes[1],
            weights=weights,
            device=device,
            steps=steps,
            draw=self.draw,
        )

    @cached_property
    def held_out(self) -> Samples:
        """The first prompts of the profile's held-out file, or those of a later draw."""
        return self._samples("held-out", self._read()[1])

    @property
    def calibration_samples(self) -> tuple[Sample, ...]:
        """The calibration prompts as they were read."""
        return self._read()[0]

    @property
    def prompts(self) -> tuple[Sample, ...]:
        """The held-out prompts as they were read."""
        return self._read()[1]

    def _read(self) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
        profile: ModelProfile = self.model.profile
        if not self.draw:
            calibration, held_out = (PromptSource(size=size) for size in self._sizes)
            sets = read_samples(profile, calibration, held_out)
            return sets.calibration, sets.held_out
        prompts = profile.prompts
        files = (PromptSource(prompt_path(name)) for name in (prompts.calibration, prompts.held_out))
        sizes = self._sizes[0] or prompts.calibration_size, self._sizes[1] or prompts.held_out_size
        sets = read_samples(profile, *files)
        return drawn(sets.calibration, sizes[0], self.draw), drawn(sets.held_out, sizes[1], self.draw)

    def _samples(self, label: str, samples: tuple[Sample, ...]) -> Samples:
        conditions = encode_samples(self.model, samples)
        name = f"{label}-{len(samples)}"
        profile: ModelProfile = self.model.profile
        if self.form.steps != profile.steps:
            name += f"-of-{self.form.steps}-steps"
        with Journal(self.folder / name, f"{self.name} {name}") as journal:
            elsewhere = None
            if self._workers is not None:
                steps = self.form.steps
                elsewhere = self._workers.reference_run(journal, conditions, steps, label).reference_chunks
            network = BatchedDenoiser(self.denoiser, conditions)
            run = reference_run(network, self.form, journal, label, elsewhere=elsewhere)
        return Samples(conditions, run)
