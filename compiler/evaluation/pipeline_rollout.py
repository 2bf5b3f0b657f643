"""Rollouts: from noise to final latents under a policy, through the step machine that deployment uses.

The loop is the pipeline's own, on latents alone: for every step and branch the machine says compute or
reuse, the denoiser does it, the branches are guided and the scheduler steps.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from budc.compiler.denoisers.conditioning import Conditioning
from budc.compiler.models.denoiser import ModelDenoiser, model_denoisers
from budc.compiler.models.model import LoadedModel
from budc.compiler.rollouts.policies import forwards_per_sample
from budc.progress import Bar
from budc.runtimes.sampling.schedulers import on_schedule
from budc.runtimes.sampling.steps import Compute, StepMachine
from budc.runtimes.sampling.trunk import combine
from budc.schema.errors import DeviceMemory
from budc.schema.policy import Policy, SamplerBinding

_BATCH = {"cpu": 8, "cuda": 16}


class PipelineRollout:
    """Rolls out policies on one model, in batches that fit the device, and counts transformer forwards.

    `forwards` counts computed forwards of one sample and one branch, the unit of the budget. `halved` is told the
    new batch size whenever device memory did not suffice, so that a resumed compile can start with it.
    """

    def __init__(
        self, model: LoadedModel, batch: int | None = None, halved: Callable[[int], object] | None = None
    ) -> None:
        self.model = model
        self.batch = batch or model.adapter.batch or _BATCH[model.device.type]
        self.forwards = 0
        self._halved = halved
        self._denoisers: dict[str, tuple[ModelDenoiser, ...]] = {}

    def run(
        self, policy: Policy, sampler: SamplerBinding, conditions: Conditioning, bar: Bar | None = None
    ) -> Tensor:
        """Return the final latents (N, ...), float32 on the CPU.

        Memory that runs out on the device halves the batch, with a line that says so.

        Raises:
            DeviceMemory: a single sample does not fit.
        """
        parts, first = [], 0
        while first < len(conditions):
            last = min(first + self.batch, len(conditions))
            part = self._try(policy, sampler, conditions.part(first, last))
            if part is None:
                self._halve(bar)
                continue
            parts.append(part)
            self.forwards += forwards_per_sample(policy) * (last - first)
            first = last
        return torch.cat(parts)

    def _try(self, policy: Policy, sampler: SamplerBinding, conditions: Conditioning) -> Tensor | None:
        try:
            return self._roll(policy, sampler, conditions).cpu()
        except torch.cuda.OutOfMemoryError:
            return None

    def _halve(self, bar: Bar | None) -> None:
        # Only here, after the exception and its frames are gone, can what they held be given back.
        torch.cuda.empty_cache()
        if self.batch == 1:
            raise DeviceMemory(
                f"{self.model.profile.name}: one sample does not fit into the memory of the device"
            )
        self.batch //= 2
        if self._halved is not None:
            self._halved(self.batch)
        if bar is not None:
            bar.say(f"out of device memory: going on with batches of {self.batch}")

    @torch.no_grad()
    def _roll(self, policy: Policy, sampler: SamplerBinding, conditions: Conditioning) -> Tensor:
        model = self.model
        device = model.device
        conditions = conditions.to(device)
        latents = conditions.noise
        scheduler = on_schedule(model.scheduler, sampler.sigmas, sampler.timesteps, device)
        denoisers = self._denoisers.setdefault(policy.payload, model_denoisers(model, policy.payload))
        machine: StepMachine[Tensor] = StepMachine(policy, combine, sampler.first_steps)
        for step, timestep in enumerate(scheduler.timesteps):
            denoiser, velocities = denoisers[sampler.expert_at(step)], {}
            for branch in model.profile.branches:
                condition = conditions.embeddings[branch]
                action = machine.step(branch, step)
                if isinstance(action, Compute):
                    velocities[branch], residual = denoiser.compute(latents, timestep, condition)
                    machine.record(branch, residual)
                else:
                    velocities[branch] = denoiser.reuse(action.cached, latents, timestep, condition)
            velocity = model.adapter.guide(velocities, sampler.guidance_at(step))
            latents = scheduler.step(velocity, timestep, latents, return_dict=False)[0]
        return latents
