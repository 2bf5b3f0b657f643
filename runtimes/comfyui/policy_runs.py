"""Runs of a MODEL of ComfyUI under a policy.

Wrappers of the engine drive them:

- OUTER_SAMPLE surrounds a run: the run is checked, and afterwards everything cached is let go, whatever ended it.
- CALC_COND_BATCH runs guidance branches one by one where the policy has separate masks for them.
- APPLY_MODEL calls the denoiser of the step, where a policy has two.
- DIFFUSION_MODEL surrounds each forward. ComfyUI names its branches and its sigma; the sigma's place in the schedule
  is the step, the step machine says what to do, and the network gets the policy's own timestep.
"""

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from budc.runtimes.admission.exclusive import ExclusiveRun
from budc.runtimes.admission.settings import SettingsCheck
from budc.runtimes.comfyui.denoisers import Denoisers
from budc.runtimes.comfyui.families import EngineFamily
from budc.runtimes.comfyui.guidance import rescaled_guidance
from budc.runtimes.comfyui.refusals import shown
from budc.runtimes.comfyui.run_check import RunCheck
from budc.runtimes.comfyui.sampling_run import BRANCHES, SamplingRun
from budc.runtimes.sampling.steps import Compute, StepMachine
from budc.runtimes.sampling.trunk import combine
from budc.schema.errors import CalibrationMismatch, RefusedRun
from budc.schema.policy import PolicyDocument

KEY = "budc"
"""Key of the wrappers, and of the `PolicyRuns` among a MODEL's attachments."""


class PolicyRuns:
    """The runs of a MODEL under a policy, one at a time. `machine` is that of the run, or of the last one."""

    def __init__(
        self, document: PolicyDocument, denoisers: Denoisers, family: EngineFamily, settings: SettingsCheck
    ) -> None:
        self.document = self._current = document
        sampler = document.sampler
        self._machine: StepMachine[Tensor] = StepMachine(document.policy, combine, sampler.first_steps)
        self.machine = self._machine
        guided = sampler.guidance_rule == "classifier-free"
        self.guide = self._guide if guided and (family.rescales or sampler.experts) else None
        self.wrappers = {
            "outer_sample": self.outer_sample,
            "calc_cond_batch": self.calc_cond_batch,
            "diffusion_model": self.forward,
        }
        if denoisers.later:
            self.wrappers["apply_model"] = self.apply_model
        self._family = family
        self._denoisers = denoisers
        self._check = RunCheck(family, denoisers.later, settings, self.guide, KEY)
        self._exclusive = ExclusiveRun("MODEL", "begin it when the first run has ended")
        self._one_mask = len({tuple(branch.mask) for branch in document.policy.branches}) == 1
        self._steps: dict[float, int] = {}

    def outer_sample(self, executor: Any, *args: Any, **kwargs: Any) -> Any:
        """Run the sampler under the policy; arguments are those of a guider's `outer_sample`.

        Raises:
            CalibrationMismatch: the run is not the calibrated one.
        """
        bound = signature(executor.original).bind(*args, **kwargs)
        given = bound.arguments
        noise, sigmas = given["noise"], given["sigmas"]
        with shown(), self._exclusive.begin():
            try:
                run = SamplingRun(
                    executor.class_obj,
                    given["sampler"],
                    sigmas,
                    noise,
                    given["latent_image"],
                    given.get("denoise_mask"),
                )
                self._take_size(*run.size)
                self._check(self._current, run)
                self._steps = {sigma: step for step, sigma in enumerate(sigmas.tolist()[:-1])}
                # ComfyUI scales the noise by the first sigma, the pipelines of diffusers do not.
                given["noise"] = noise / sigmas[0].to(noise.device)
                return executor(*bound.args, **bound.kwargs)
            finally:
                self._steps = {}
                self.machine.begin_run()
                self._denoisers.end_run()

    def calc_cond_batch(
        self, executor: Any, model: Any, conds: Sequence[Any], x: Tensor, timestep: Tensor, options: Any
    ) -> Any:
        """Compute the denoised latents of each branch; in forwards of their own where their masks differ."""
        if self._one_mask:
            return executor(model, conds, x, timestep, options)
        outputs = []
        for place, cond in enumerate(conds):
            alone = [None] * len(conds)
            alone[place] = cond
            outputs.append(executor(model, alone, x, timestep, options)[place])
        return outputs

    def apply_model(self, executor: Any, x: Tensor, timestep: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Compute the denoised latents of a forward with the denoiser of its step. Raises RefusedRun."""
        given = signature(executor.original).bind(x, timestep, *args, **kwargs).arguments
        step = self._step(given["transformer_options"])
        return self._denoisers.apply_model(executor, step, x, timestep, *args, **kwargs)

    def forward(self, executor: Any, x: Tensor, timestep: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Compute, or reuse, as the policy says for the step and the branches of a forward.

        `x` holds the rows of every branch, one after the other.

        Raises:
            RefusedRun: it is no step of the run's schedule, or a step was left out or repeated.
            CalibrationMismatch: the policy has no such branch.
        """
        given = signature(executor.original).bind(x, timestep, *args, **kwargs).arguments
        options = given["transformer_options"]
        step, branches = self._step(options), _branches(options)
        actions = [self.machine.step(branch, step) for branch in branches]
        scaled = self._current.sampler.timesteps[step] * self._family.timestep_scale
        timestep = torch.full_like(timestep, scaled)
        trunk = self._denoisers.trunk(step)
        reused = [action.cached for action in actions if not isinstance(action, Compute)]
        if reused:
            cached = reused[0] if len(reused) == 1 else torch.cat(reused)
            if self.document.policy.payload == "velocity":
                return cached
            return trunk.reuse(cached, lambda: executor(x, timestep, *args, **kwargs))
        velocity, recorded = trunk.compute(lambda: executor(x, timestep, *args, **kwargs))
        if self.document.policy.payload == "velocity":
            recorded = velocity
        for branch, rows in zip(branches, recorded.chunk(len(branches)), strict=True):
            self.machine.record(branch, rows)
        return velocity

    def _guide(self, given: Mapping[str, Any]) -> Tensor:
        """Return the guided σ v; the scale is the user's `cfg`, and for a second denoiser the policy's own."""
        step = self._steps.get(float(given["sigma"][0]), 0)
        scale = given["cond_scale"]
        if self.document.sampler.expert_at(step):
            scale = self.document.sampler.guidance_at(step) + self._family.cfg_offset
        if self._family.rescales:
            return rescaled_guidance({**given, "cond_scale": scale})
        guided: Tensor = given["uncond"] + scale * (given["cond"] - given["uncond"])
        return guided

    def _take_size(self, frames: int, height: int, width: int) -> None:
        """Go over to the sigmas and predictors that the policy has for a size."""
        self._current = current = self.document.of_size(frames, height, width)
        self.machine = self._machine
        if current.policy is not self.document.policy:
            self.machine = StepMachine(current.policy, combine, current.sampler.first_steps)

    def _step(self, options: Any) -> int:
        if not self._steps:
            raise RefusedRun(
                "the network was called outside of a sampler, so its step is not known",
                remedy="use SamplerCustom, or the MODEL of the loader",
            )
        sigma = float(options["sigmas"][0])
        if sigma not in self._steps:
            raise RefusedRun(
                f"sigma {sigma:.6g} is none of the policy's: the sampler evaluates the network between steps",
                remedy='use the sampler of the node "budc sampler and sigmas"',
            )
        return self._steps[sigma]


def _branches(options: Any) -> tuple[str, ...]:
    """Return the branches of a forward in the order of their rows."""
    places = options["cond_or_uncond"]
    unknown = [place for place in places if place >= len(BRANCHES)]
    if unknown:
        raise CalibrationMismatch(
            f"branch: this guider runs {max(unknown) + 1} conditionings, a policy has {', '.join(BRANCHES)}",
            remedy="use CFGGuider or BasicGuider",
        )
    return tuple(BRANCHES[place] for place in places)
