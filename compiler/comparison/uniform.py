"""Computed steps spread evenly, the newest residual reused in between: nothing is searched or measured."""

from __future__ import annotations

from budc.compiler.comparison.fitted import Fitted, plain
from budc.compiler.comparison.setting import Setting
from budc.schema.mask import StepMask


def uniform(setting: Setting, nfe: int) -> Fitted:
    """Return the uniform mask."""
    steps = StepMask.uniform(setting.form.steps, nfe).through(setting.sampler.first_steps).compute_steps
    policy = plain(setting.form.steps, steps, setting.branches)
    return Fitted(policy=policy, chosen={"steps": list(steps)})
