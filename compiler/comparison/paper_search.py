"""The reference search of arXiv 2606.13496 with its published settings: annealing, then hill climbing.

Plain reuse of the trunk residual, one mask for all guidance branches, a protected prefix, mean squared error of
the final latents over the calibration prompts as objective. Its cost is counted twice: the forwards that were
computed here, where candidates share the rollout of a common beginning, and those that the same candidates
take when each is rolled out alone, as the reference does.

`paper_aligned` goes on with the second stage: the sigmas are trained on all calibration prompts, see
`budc.compiler.training.schedule_alignment`.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import NamedTuple

import msgspec

from budc.compiler.comparison.fitted import Fitted, plain
from budc.compiler.comparison.rivals import CannotRun
from budc.compiler.comparison.setting import Setting
from budc.compiler.rollouts.schedule import NoiseSchedule
from budc.compiler.rollouts.tree import Tree
from budc.compiler.search import Candidate, Space, algorithm
from budc.compiler.storage.journal import Journal
from budc.compiler.training.dataset import TrainingSet
from budc.compiler.training.schedule_alignment import align_schedule, training_settings
from budc.progress import progress
from budc.schema.errors import UnsupportedModel

MEMORY = 2 << 30
"""Bytes of rollout states that are remembered."""


class Searched(NamedTuple):
    """The best candidate of a search, and its forwards: with shared beginnings, and without."""

    candidate: Candidate
    loss: float
    candidates: int
    forwards: int
    unshared: int


class _Score(msgspec.Struct, frozen=True):
    """What the journal has of a candidate."""

    loss: float
    forwards: int


def paper_search(setting: Setting, nfe: int, seed: int, folder: Path, prompts: int | None = None) -> Searched:
    """Search the mask of one budget on the first `prompts`; every loss is in `folder` before the search sees it."""
    samples = setting.calibration
    if prompts is not None:
        samples = samples.part(0, prompts)
    space = Space(steps=setting.form.steps, nfe=nfe, branches=setting.branches, annealing=setting.annealing)
    chosen = algorithm("paper")
    walk = chosen.propose(space, random.Random(seed))
    tree = Tree(setting.network(samples), setting.form, samples.run, folder, MEMORY)
    losses: dict[str, float] = {}
    forwards = 0
    with (
        Journal(folder, f"{setting.name} {nfe} {seed} {len(samples)}") as journal,
        progress(f"{setting.name} NFE {nfe} paper seed {seed}", chosen.max_candidates(space)) as bar,
    ):
        candidates = next(walk)
        while True:
            for candidate in candidates:
                key = candidate.key
                if key not in losses:
                    score = journal.get(key, _Score)
                    if score is None:
                        (rollout,) = tree.roll_out([candidate])
                        score = _Score(sum(rollout.errors) / len(rollout.errors), rollout.forwards)
                        journal.put(key, score)
                    else:
                        tree.note(candidate)
                    losses[key] = score.loss
                    forwards += score.forwards
                bar.advance(f"best {min(losses.values()):.4g}")
            try:
                candidates = walk.send([losses[candidate.key] for candidate in candidates])
            except StopIteration as end:
                winner: Candidate = end.value
                break
    unshared = len(losses) * nfe * len(space.branches) * len(samples)
    return Searched(winner, losses[winner.key], len(losses), forwards, unshared)


def paper(setting: Setting, nfe: int, seed: int, folder: Path, *, prompts: int | None = None) -> Fitted:
    """Search on the first `prompts` (default: all)."""
    searched = paper_search(setting, nfe, seed, folder, prompts)
    steps, full = searched.candidate.mask.compute_steps, setting.full_forwards
    if prompts is not None:
        full = full // len(setting.calibration) * prompts
    return Fitted(
        policy=plain(setting.form.steps, steps, setting.branches),
        forwards=full + searched.forwards,
        unshared=full + searched.unshared,
        chosen={"steps": list(steps), "calibrationLoss": searched.loss, "candidates": searched.candidates},
    )


def paper_aligned(
    setting: Setting, nfe: int, seed: int, folder: Path, *, prompts: int | None = None
) -> Fitted:
    """Search on the first `prompts` (default: all), then align the schedule on all.

    Raises:
        CannotRun: the solver has no linear form on the schedule.
    """
    searched = paper(setting, nfe, seed, folder, prompts=prompts)
    assert searched.policy is not None
    assert searched.unshared is not None
    samples, sampler = setting.calibration, setting.sampler
    label = f"{setting.name} NFE {nfe} schedule alignment"
    with Journal(folder / "alignment", f"{label} {seed} {prompts} {len(samples)}") as journal:
        try:
            schedule, training = align_schedule(
                setting.denoiser,
                searched.policy,
                NoiseSchedule.of(setting.scheduler, sampler.sigmas, sampler.timesteps),
                TrainingSet(samples.conditions, samples.run.latents),
                training_settings(len(setting.branches), len(samples), seed),
                journal,
                label,
            )
        except UnsupportedModel as error:
            raise CannotRun(str(error)) from error
    # The full run of the prompts that the search did not see is made for the training.
    spent = training.forwards + setting.full_forwards * (len(samples) - (prompts or len(samples))) // len(
        samples
    )
    return msgspec.structs.replace(
        searched,
        sigmas=schedule.sigmas,
        timesteps=schedule.timesteps,
        forwards=searched.forwards + spent,
        unshared=searched.unshared + spent,
        chosen={**searched.chosen, "sigmas": list(schedule.sigmas), "epochs": training.epoch},
    )
