"""How good such a policy can become: the result of `--align`, trained on with many more samples and epochs.

This is no setting of the compiler: it costs too much. It shows what limits `--align`. Where it gains little, the limit
is not the calibration set or the training, but what constant coefficients and sigmas can express.
"""

from __future__ import annotations

from pathlib import Path

from budc.compiler.comparison.learned_solver import paired_sets
from budc.compiler.selection.alignment import aligned
from budc.compiler.storage.journal import Journal
from budc.compiler.training.parameters import PolicyParameters
from budc.compiler.training.trainer import TrainingSettings, train
from quality_methods.budc_joint import find
from quality_methods.outcome import Outcome, static
from quality_methods.setting import Setting

PROMPTS, JUDGING = 64, 8
"""Calibration prompts, and how many of them choose the epoch."""

NOISES, EPOCHS, BATCH = 8, 6, 8
"""Noises of each prompt, epochs over all of them, and samples a step."""


def ceiling(setting: Setting, nfe: int, seed: int, folder: Path) -> Outcome:
    """Train the policy that `joint --align` found with this seed."""
    result = find(setting, nfe, seed, folder.with_name(f"joint-align-{nfe}-{seed}"), align=True)
    parameters = PolicyParameters(
        result.policy, setting.model.scheduler, result.schedule.sigmas, result.schedule.timesteps, True
    )
    samples = setting.on(PROMPTS).calibration
    with Journal(folder, f"{setting.name} ceiling {nfe} {seed} {NOISES} {EPOCHS}") as journal:
        refined = train(
            setting.denoiser,
            parameters,
            *paired_sets(setting, samples, PROMPTS - JUDGING, journal, NOISES),
            TrainingSettings(EPOCHS, seed, BATCH),
            journal,
            f"{setting.name} ceiling {nfe}",
        )
    policy, schedule = aligned(result.policy, parameters)
    full_runs = NOISES * PROMPTS * setting.form.steps * len(setting.branches)
    chosen = {"epoch": refined.epoch, "logLoss": [refined.before, refined.after]}
    forwards = result.forwards.total + full_runs + refined.forwards
    return static(setting, policy, schedule.linear_form(), forwards=forwards, chosen=chosen)
