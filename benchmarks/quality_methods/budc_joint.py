"""budc itself: `joint`, and `joint` with `--align`, through the compiler's own passes, with each effort.

`auto` chooses the number of steps as well (`--steps auto`): the policy is then a few plain steps, aligned, where these
win on prompts that the search did not see. `separate` gives every guidance branch a mask of its own, under the same
total.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from budc.compiler.rollouts.schedule import NoiseSchedule
from budc.compiler.selection.calibration import Calibration
from budc.compiler.selection.finder import Finder
from budc.compiler.selection.task import SearchResult, Task
from budc.compiler.storage.journal import Journal
from budc.policies.published_masks import masks_for
from budc.schema.policy import SamplerBinding
from quality_methods.outcome import Outcome, static
from quality_methods.setting import Setting


def find(
    setting: Setting,
    nfe: int,
    seed: int,
    folder: Path,
    *,
    align: bool = False,
    auto: bool = False,
    separate: bool = False,
    effort: str = "thorough",
) -> SearchResult:
    """Compile on the calibration prompts; a search that was stopped goes on from `folder`."""
    model = setting.model
    task = Task(
        denoiser=setting.denoiser,
        schedule=_schedule(setting, setting.sampler),
        conditions=setting.calibration.conditions,
        nfe=nfe,
        annealing=model.profile.search,
        search="joint",
        effort=effort,
        seed=seed,
        align=align,
        separate=separate,
        published_masks=masks_for(model.profile, setting.form.steps, nfe),
        few_step_schedule=_schedule(setting, model.sampler(nfe)) if auto else None,
    )
    name = f"{setting.name} joint {effort}{' separate' * separate} {nfe} {seed} {len(setting.calibration)}"
    with Journal(folder, name) as journal:
        return Finder(Calibration(task, journal)).find(task)


def budc_joint(
    setting: Setting,
    nfe: int,
    seed: int,
    folder: Path,
    *,
    align: bool = False,
    auto: bool = False,
    effort: str = "thorough",
) -> Outcome:
    """Compile, then run on the held-out prompts.

    What `joint` without these options has measured with the same seed is counted, but not measured again.
    """
    plain = folder.with_name(f"joint-{nfe}-{seed}")
    if effort == "thorough" and plain.is_dir() and not folder.exists():
        shutil.copytree(plain, folder)
    return run(setting, find(setting, nfe, seed, folder, align=align, auto=auto, effort=effort))


def budc_separate(setting: Setting, nfe: int, seed: int, folder: Path) -> Outcome:
    """Compile with a mask for every branch, then run on the held-out prompts."""
    return run(setting, find(setting, nfe, seed, folder, separate=True))


def run(setting: Setting, result: SearchResult) -> Outcome:
    """Run what was found on the held-out prompts."""
    chosen = {
        "steps": [list(branch.step_mask().compute_steps) for branch in result.policy.branches],
        "payload": result.policy.payload,
        "candidates": result.candidates,
        "aligned": result.aligned,
        "notes": list(result.notes),
    }
    form = result.schedule.linear_form()
    return static(setting, result.policy, form, forwards=result.forwards.total, chosen=chosen)


def _schedule(setting: Setting, sampler: SamplerBinding) -> NoiseSchedule:
    return NoiseSchedule.of(setting.model.scheduler, sampler.sigmas, sampler.timesteps)
