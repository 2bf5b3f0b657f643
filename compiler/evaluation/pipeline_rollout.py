"""The pipeline's own rollout: from noise to final latents under a policy, on the model and scheduler of deployment.

For every step and branch the step machine says compute or reuse, the model does it, the branches are guided and the
scheduler steps. This loop is kept apart from `budc.compiler.rollouts.step` on purpose. It is the independent witness:
it steps the real scheduler where the search uses its linear form, so what the search concludes is measured by code
that the search does not share.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from budc.compiler.denoisers.conditioning import Conditioning
from budc.compiler.denoisers.microbatches import MicroBatches
from budc.compiler.models.denoiser import ModelDenoiser, model_denoisers
from budc.compiler.models.model import LoadedModel
from budc.compiler.rollouts.policies import forwards_per_sample
from budc.compiler.rollouts.workers import ReportWorkers
from budc.progress import Bar
from budc.runtimes.sampling.schedulers import on_schedule
from budc.runtimes.sampling.steps import Compute, StepMachine
from budc.runtimes.sampling.trunk import combine
from budc.schema.policy import Policy, SamplerBinding

_BATCH = 8
_BATCH_OF_ACCELERATOR = 16


class PipelineRollout:
    """Rolls out policies on one model, in batches that fit the device, and counts transformer forwards.

    `forwards` counts computed forwards of one sample and one branch, the unit of the budget. `halved` is told the
    new batch size whenever device memory did not suffice, so that a resumed compile can start with it.
    `first_blocks` run at reused steps too, see `Trunk`. `workers`, where there are any, roll out chunks in its place.
    `seconds` has each chunk that was rolled out here, by its pass: how many samples, and what each of them took.
    """

    def __init__(
        self,
        model: LoadedModel,
        batch: int | None = None,
        halved: Callable[[int], object] | None = None,
        first_blocks: int = 0,
        workers: ReportWorkers | None = None,
    ) -> None:
        self.model = model
        self.workers = workers
        self._first_blocks = first_blocks
        self.forwards = 0
        self.seconds: dict[str, list[tuple[int, float]]] = {}
        default = _BATCH if model.device.type == "cpu" else _BATCH_OF_ACCELERATOR
        self._microbatches = MicroBatches(batch or model.adapter.batch or default)
        self._halved = halved
        self._denoisers: dict[str, tuple[ModelDenoiser, ...]] = {}

    @property
    def batch(self) -> int:
        """Samples of one forward, at most."""
        return self._microbatches.at_once

    def run(
        self, policy: Policy, sampler: SamplerBinding, conditions: Conditioning, bar: Bar | None = None
    ) -> Tensor:
        """Return the final latents (N, ...), float32 on the CPU.

        Memory that runs out on the device halves the batch, with a line on the bar that says so.

        Raises:
            DeviceMemory: a single sample does not fit.
        """

        def halved(batch: int) -> None:
            if self._halved is not None:
                self._halved(batch)
            if bar is not None:
                bar.say(f"out of device memory: going on with batches of {batch}")

        def roll(first: int, last: int) -> Tensor:
            latents = self._roll(policy, sampler, conditions.part(first, last)).cpu()
            self.forwards += forwards_per_sample(policy) * (last - first)
            return latents

        return torch.cat(self._microbatches.run(len(conditions), roll, halved=halved))

    @torch.no_grad()
    def _roll(self, policy: Policy, sampler: SamplerBinding, conditions: Conditioning) -> Tensor:
        model = self.model
        device = model.device
        conditions = conditions.to(device)
        latents = conditions.noise
        scheduler = on_schedule(model.scheduler, sampler.sigmas, sampler.timesteps, device)
        denoisers = self._denoisers.setdefault(
            policy.payload, model_denoisers(model, policy.payload, self._first_blocks)
        )
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
