"""Few-step solvers with the best timesteps and coefficients that the compiler's own trainer finds for them.

    x_{k+1} = solver's x_{k+1} + Σ_{m ≤ k} h_m Σ_{i < 3} δ[m, i] · v_{m-i}            h_m = σ_{m+1} - σ_m

σ is trained through a softmax of log gaps with both ends pinned; δ corrects the solver's weights of the three newest
velocities at every step; the solver's form follows σ. Loss, optimiser, early stopping on a part of the calibration
prompts and several noises for each prompt are those of budc's own policies (`budc.compiler.training`). Without δ, only
the timesteps are trained and the solver stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from budc.compiler.denoisers.batched import BatchedDenoiser
from budc.compiler.rollouts.linear_form import LinearForm
from budc.compiler.rollouts.policies import full_policy
from budc.compiler.selection.stages import SEARCH_SHARE
from budc.compiler.storage.journal import Journal
from budc.compiler.training.augmentation import PAIRINGS, paired_training_set
from budc.compiler.training.dataset import TrainingSet
from budc.compiler.training.trainer import TrainingSettings, train
from budc.schema.policy import Payload
from quality_methods.few_steps import SOLVERS, Form, default_schedule
from quality_methods.outcome import Outcome, static
from quality_methods.setting import Samples, Setting

BAND = 3
EPOCHS = 8
"""More than `--align` takes, so that the baseline is as good as the trainer can make it."""


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


def trained_steps(
    setting: Setting, nfe: int, solver: str, folder: Path, *, coefficients: bool = True
) -> Outcome:
    """Train the timesteps of a solver of `nfe` steps, and its coefficients if asked for; then run it."""
    samples, branches = setting.calibration, len(setting.branches)
    parameters = SolverParameters(
        SOLVERS[solver](setting), *default_schedule(setting, nfe), branches, coefficients
    )
    split = round(SEARCH_SHARE * len(samples))
    trained = "" if coefficients else " timesteps"
    with Journal(folder, f"{setting.name} {solver} {nfe} {len(samples)} {EPOCHS}{trained}") as journal:
        refined = train(
            setting.denoiser,
            parameters,
            *paired_sets(setting, samples, split, journal),
            TrainingSettings(EPOCHS, seed=0),
            journal,
            f"{setting.name} {solver} {nfe}",
        )
    with torch.no_grad():
        form = parameters.form()
        sigmas = parameters.schedule().tolist()
    policy = full_policy(nfe, setting.branches)
    chosen = {"sigmas": sigmas, "epoch": refined.epoch, "logLoss": [refined.before, refined.after]}
    return static(
        setting, policy, form, forwards=PAIRINGS * setting.full_forwards + refined.forwards, chosen=chosen
    )
