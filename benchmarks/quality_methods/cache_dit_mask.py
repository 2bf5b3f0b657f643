"""cache-dit (the package itself, on the real transformer): its static steps mask, without and with Taylor forecasts.

The transformer is called as the pipeline calls it, the conditional branch before the unconditional one of every
step, under the package's own cache. Its mask is uniform, with as many computed steps as the budget.

At least one leading block runs at every step, also at cached ones, so it costs more than its mask says. The NFE
reported is what really ran: block evaluations over the number of blocks. On a shallow model it cannot meet a small
budget; it is then compared with methods of the budget that its mask has.
"""

from __future__ import annotations

import copy
import logging
from typing import Any

import torch
from torch import Tensor

from budc.compiler.denoisers.denoiser import guide
from budc.schema.mask import StepMask
from quality_methods.outcome import Outcome
from quality_methods.setting import Setting

BATCH = 32


class _Calls:
    """How many samples went through the blocks."""

    def __init__(self, blocks: Any) -> None:
        self.samples = 0
        self._handles = [block.register_forward_pre_hook(self._count) for block in blocks]

    def _count(self, block: Any, inputs: tuple[Any, ...]) -> None:
        self.samples += len(inputs[0])


def _enable(transformer: Any, mask: StepMask, order: int | None) -> None:
    import cache_dit  # here, because importing it reconfigures logging

    logging.getLogger("CACHE_DIT").setLevel(logging.ERROR)
    config = cache_dit.DBCacheConfig(
        Fn_compute_blocks=1,
        Bn_compute_blocks=0,
        max_warmup_steps=0,
        enable_separate_cfg=True,
        num_inference_steps=len(mask),
        steps_computation_mask=[int(compute) for compute in mask],
        steps_computation_policy="static",
    )
    calibrator = None if order is None else cache_dit.TaylorSeerCalibratorConfig(taylorseer_order=order)
    cache_dit.enable_cache(transformer, cache_config=config, calibrator_config=calibrator)


@torch.no_grad()
def cache_dit_mask(setting: Setting, nfe: int, order: int | None) -> Outcome:
    """Run the mask on the held-out prompts; `order` of the Taylor calibrator, None for none."""
    samples, form = setting.held_out, setting.form
    mask = StepMask.uniform(form.steps, nfe)
    transformer: Any = copy.deepcopy(setting.model.denoiser)
    blocks = list(transformer.blocks)
    _enable(transformer, mask, order)
    calls = _Calls(blocks)
    latents_of_batches = []
    for first in range(0, len(samples), BATCH):
        conditions = samples.conditions.part(first, first + BATCH)
        velocities: list[Tensor] = []
        for step, timestep in enumerate(form.timesteps.float()):
            latents = form.latents(step, conditions.noise, velocities)
            velocity_of = {}
            for branch in setting.branches:
                inputs = setting.model.adapter.inputs(conditions.embeddings[branch], latents, timestep)
                with transformer.cache_context(branch):
                    velocity_of[branch] = transformer(**inputs, return_dict=False)[0]
            velocities.append(guide(setting.denoiser.weights, velocity_of))
        latents_of_batches.append(form.latents(form.steps, conditions.noise, velocities))
    spent = calls.samples / len(blocks) / len(setting.branches) / len(samples)
    chosen = {"steps": list(mask.compute_steps), "maskNfe": mask.nfe, "blocks": len(blocks)}
    return Outcome(torch.cat(latents_of_batches), (spent,) * len(samples), chosen=chosen)
