"""Computed steps spread evenly, the newest residual reused in between: nothing is searched or measured."""

from __future__ import annotations

from budc.schema.mask import StepMask
from quality_methods.outcome import Outcome, plain, static
from quality_methods.setting import Setting


def uniform(setting: Setting, nfe: int) -> Outcome:
    """Run the uniform mask."""
    steps = StepMask.uniform(setting.form.steps, nfe).compute_steps
    return static(setting, plain(setting, steps), chosen={"steps": list(steps)})
