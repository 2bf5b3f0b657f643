"""Few-step solvers with learned timesteps and weights: in the manner of LD3 and DyWeight.

    x_{k+1} = solver's x_{k+1} + Σ_{m ≤ k} h_m Σ_{i < 3} δ[m, i] · v_{m-i}            h_m = σ_{m+1} - σ_m

σ is trained through a softmax of log gaps with both ends pinned; δ corrects the solver's weights of the three newest
velocities at every step; the solver's form follows σ. Without δ only the timesteps are learned, and the solver stays
as it is: LD3 (arXiv 2405.15506). With δ its weights are learned too: DyWeight (arXiv 2603.11607).

Simplified: loss, optimiser, early stopping on a part of the calibration prompts and several noises for each prompt are
those of budc's own policies (`budc.compiler.training`), so these rivals are as good as that trainer can make them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from budc.compiler.comparison.fitted import Fitted, LearnedSolver
from budc.compiler.comparison.rivals import CannotRun
from budc.compiler.comparison.setting import Samples, Setting
from budc.compiler.denoisers.batched import BatchedDenoiser
from budc.compiler.rollouts.linear_form import LinearForm, linear_form, trainable
from budc.compiler.storage.journal import Journal
from budc.compiler.training.augmentation import PAIRINGS, paired_training_set
from budc.compiler.training.dataset import TrainingSet
from budc.compiler.training.trainer import TrainingSettings, train
from budc.schema.policy import Payload

BAND = 3
TRAINING_SHARE = 0.75
"""Of the calibration prompts; the others say when to stop."""
EPOCHS = 8
"""More than `--align` takes, so that the rival is as good as the trainer can make it."""

Form = Callable[[Tensor, Tensor], LinearForm]
"""A solver: its linear form on sigmas (steps + 1,) and timesteps (steps,)."""


def of_scheduler(scheduler: Any) -> Form:
    """Return the form of a scheduler of diffusers."""
    return lambda sigmas, timesteps: linear_form(scheduler, trainable(scheduler, sigmas), timesteps)


def default_schedule(setting: Setting, nfe: int) -> tuple[Tensor, Tensor]:
    """Return sigmas (nfe + 1,) and timesteps (nfe,) of the model's sampler at so many steps; float64."""
    sampler = setting.sampler_of(nfe)
    return (
        torch.tensor(sampler.sigmas, dtype=torch.float64),
        torch.tensor(sampler.timesteps, dtype=torch.float64),
    )


class SolverParameters:
    """The trainable parameters of a few-step solver: sigmas and, with `coefficients`, corrections."""

    payload: Payload = "velocity"

    def __init__(
        self, solver: Form, sigmas: Tensor, timesteps: Tensor, branches: int, coefficients: bool = True
    ) -> None:
        self._solver = solver
        self._ends = sigmas[[0]], sigmas[[-1]]
        self._gaps = ((sigmas[:-1] - sigmas[1:]) / (sigmas[0] - sigmas[-1])).log()
        self._scale = float(timesteps[0] / sigmas[0])
        steps = len(timesteps)
        self.forwards = steps * branches
        self._offsets = torch.zeros(steps, dtype=torch.float64, requires_grad=True)
        self._delta = torch.zeros(steps, BAND, dtype=torch.float64, requires_grad=coefficients)
        self.groups: Mapping[str, Tensor] = {"sigmas": self._offsets}
        if coefficients:
            self.groups = {**self.groups, "coefficients": self._delta}

    def schedule(self) -> Tensor:
        """Return the sigmas (steps + 1,)."""
        first, last = self._ends
        share = torch.softmax(self._gaps + self._offsets, 0).cumsum(0)
        return torch.cat([first, first + (last - first) * share[:-1], last])

    def form(self) -> LinearForm:
        """Return the solver on the present sigmas, corrected."""
        sigmas = self.schedule()
        timesteps = sigmas[:-1] * self._scale
        form = self._solver(sigmas, timesteps.detach())
        gaps = sigmas[1:] - sigmas[:-1]
        rows = torch.zeros(len(gaps), len(gaps), dtype=torch.float64)
        for age in range(min(BAND, len(gaps))):
            rows = rows + torch.diag_embed((gaps * self._delta[:, age])[age:], offset=-age)
        velocity = form.velocity + torch.cat([torch.zeros_like(rows[:1]), rows.cumsum(0)])
        return LinearForm(form.start, velocity, timesteps)

    def row(self, branch: str, step: int) -> tuple[float, ...]:
        """Every step computes."""
        return ()


def paired_sets(
    setting: Setting, samples: Samples, split: int, journal: Journal, pairings: int = PAIRINGS
) -> tuple[TrainingSet, TrainingSet]:
    """Return the first `split` samples for training and the others for early stopping, each with several noises."""
    training, stopping = (
        paired_training_set(
            BatchedDenoiser(setting.denoiser, samples.conditions.part(first, last)),
            setting.form,
            samples.run.part(first, last).latents,
            journal,
            f"paired {first}-{last} full",
            pairings,
        )
        for first, last in ((0, split), (split, len(samples)))
    )
    return training, stopping


def learned_solver(
    setting: Setting, nfe: int, seed: int, folder: Path, *, weights: bool, solver: Form | None = None
) -> Fitted:
    """Train the timesteps of a solver of `nfe` steps (default: the model's own), and its `weights` if asked for.

    Raises:
        CannotRun: there is a single calibration prompt.
    """
    samples, name = setting.calibration, setting.name
    form = of_scheduler(setting.scheduler) if solver is None else solver
    parameters = SolverParameters(form, *default_schedule(setting, nfe), len(setting.branches), weights)
    split = round(TRAINING_SHARE * len(samples))
    if split == len(samples):
        raise CannotRun("it learns from two calibration prompts or more, of which one says when to stop")
    label = f"{name} {nfe} steps, {'timesteps and weights' if weights else 'timesteps'}"
    with Journal(folder, f"{label} {len(samples)} {seed} {EPOCHS}") as journal:
        training = train(
            setting.denoiser,
            parameters,
            *paired_sets(setting, samples, split, journal),
            TrainingSettings(EPOCHS, seed),
            journal,
            label,
        )
    with torch.no_grad():
        learned = LearnedSolver.of(parameters.form(), parameters.schedule())
    return Fitted(
        solver=learned,
        forwards=PAIRINGS * setting.full_forwards + training.forwards,
        chosen={
            "sigmas": list(learned.sigmas),
            "epoch": training.epoch,
            "logLoss": [training.before, training.after],
        },
    )
