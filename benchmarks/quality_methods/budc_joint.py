"""budc itself: `joint`, and `joint` with `--align`, through the compiler's own passes and with its defaults.

`auto` lets the number of steps be a choice too (`--steps auto`): a few plain steps, aligned, are then the policy
where they win on prompts that the search did not see; `separate` lets the guidance branches have masks of their own
under the same total.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from budc.compiler.rollouts.linear_form import linear_form
from budc.compiler.selection.finder import compile_policies
from budc.compiler.selection.task import NoiseSchedule, Task
from budc.compiler.selection.task import SearchResult as Found
from budc.compiler.storage.journal import Journal
from budc.policies.published_masks import masks_for
from budc.schema.policy import SamplerBinding
from quality_methods.outcome import SearchResult, static
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
) -> Found:
    """Compile on the calibration prompts; a folder that holds the same search is gone on with."""
    model = setting.model
    task = Task(
        denoiser=setting.denoiser,
        scheduler=model.scheduler,
        schedule=_schedule(setting.sampler),
        conditions=setting.calibration.conditions,
        nfe=nfe,
        annealing=model.profile.search,
        search="joint",
        seed=seed,
        align=align,
        separate=separate,
        published_masks=masks_for(model.profile, setting.form.steps, nfe),
        few_step_schedule=_schedule(model.sampler(nfe)) if auto else None,
    )
    name = f"{setting.name} joint{' separate' * separate} {nfe} {seed} {len(setting.calibration)}"
    with Journal(folder, name) as journal:
        ((_, found),) = compile_policies(task, [nfe], journal)
    return found


def budc_joint(
    setting: Setting, nfe: int, seed: int, folder: Path, *, align: bool = False, auto: bool = False
) -> SearchResult:
    """Compile, then run on the held-out prompts.

    What the same seed's plain `joint` has measured is not measured again, but is counted.
    """
    known = folder.with_name(f"joint-{nfe}-{seed}")
    if known.is_dir() and not folder.exists():
        shutil.copytree(known, folder)
    return _run(setting, find(setting, nfe, seed, folder, align=align, auto=auto))


def budc_separate(setting: Setting, nfe: int, seed: int, folder: Path) -> SearchResult:
    """Compile with a mask for every branch, then run on the held-out prompts."""
    return _run(setting, find(setting, nfe, seed, folder, separate=True))


def _run(setting: Setting, found: Found) -> SearchResult:
    form = linear_form(setting.model.scheduler, found.schedule.sigmas, found.schedule.timesteps)
    chosen = {
        "steps": [list(branch.step_mask().compute_steps) for branch in found.policy.branches],
        "payload": found.policy.payload,
        "candidates": found.candidates,
        "aligned": found.aligned,
        "notes": list(found.notes),
    }
    return static(setting, found.policy, form, forwards=found.forwards, chosen=chosen)


def _schedule(sampler: SamplerBinding) -> NoiseSchedule:
    return NoiseSchedule(tuple(sampler.sigmas), tuple(sampler.timesteps))
