"""OpenVINO GenAI's TaylorSeer cache: an interval, after some and before some computed steps.

Its velocity at a step that it does not compute is the linear forecast from the two newest computed ones. A mask that
is not of its form is refused, because another mask is another policy.
"""

import json
from typing import NamedTuple

from budc.runtimes.targets.deployment import Configuration, Deployment
from budc.runtimes.targets.deployment_target import DeploymentTarget
from budc.schema.errors import UnsupportedModel
from budc.schema.mask import StepMask

LEADING = 2
"""A forecast needs two computed steps."""


class Interval(NamedTuple):
    """Every step before `before` is computed, then every `length`-th, and every one from `after` on."""

    length: int
    before: int
    after: int

    def mask(self, steps: int) -> StepMask:
        """Return the mask of a run of so many steps."""
        start = max(self.before, LEADING)
        return StepMask.of(
            step < start or step >= self.after or (step - start) % self.length == self.length - 1
            for step in range(steps)
        )


def interval_of(mask: StepMask) -> Interval | None:
    """Return the interval that gives a mask, None where none does."""
    reused = [step for step, compute in enumerate(mask) if not compute]
    if not reused:
        return Interval(2, mask.steps, mask.steps)
    before, after = reused[0], reused[-1] + 1
    computed = next((step for step in range(before, after) if mask[step]), after)
    interval = Interval(computed - before + 1, before, after)
    return interval if before >= LEADING and interval.mask(mask.steps) == mask else None


def periodic_masks(steps: int, nfe: int) -> tuple[StepMask, ...]:
    """Return the masks of an interval that compute `nfe` of so many steps."""
    if nfe == steps:
        return (StepMask.of([True] * steps),)
    masks: dict[StepMask, None] = {}
    for length in range(2, steps + 1):
        for before in range(LEADING, steps):
            whole = Interval(length, before, steps).mask(steps)
            reused = [step for step, compute in enumerate(whole) if not compute]
            if 0 < steps - nfe <= len(reused):
                masks[Interval(length, before, reused[steps - nfe - 1] + 1).mask(steps)] = None
    return tuple(masks)


_USAGE = "openvino_genai.TaylorSeerCacheConfig(**json.load(open('FILE'))) in the generation config"


def configuration(deployment: Deployment) -> Configuration:
    """Return the fields of `TaylorSeerCacheConfig`. Raises UnsupportedModel: no interval gives the mask."""
    mask = deployment.mask
    interval = interval_of(mask)
    if interval is None:
        raise UnsupportedModel(
            f"{deployment.document.name} computes {mask.strip()}, which is no interval, and OpenVINO GenAI knows no "
            "other mask",
            remedy="make one for it: budc compile --for openvino-genai",
        )
    fields = {
        "cache_interval": interval.length,
        "disable_cache_before_step": interval.before,
        "disable_cache_after_step": interval.after,
    }
    return Configuration(json.dumps(fields, indent=1) + "\n", _USAGE)


OPENVINO_GENAI = DeploymentTarget(
    name="openvino-genai",
    engine="OpenVINO GenAI",
    version="2026",
    payload="velocity",
    rule="linear",
    leading=LEADING,
    masks=periodic_masks,
    unchecked=(
        "the signature, and whose policy it is",
        "the model: a converted folder has no digest of the original",
        "the number of steps of a run: another one gives another mask",
        "sigmas, guidance, size, precision, prompts and adapters",
    ),
    write=configuration,
)
