"""The MODELs of a policy, one for each of its denoisers: the second takes over in the middle of a run (Wan2.2).

The engine samples one MODEL: the first. From its first step on, the second is called in its place, with the same
arguments; the engine loads its weights then, and makes room for them as for any other model.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from budc.runtimes.comfyui.families import EngineFamily
from budc.runtimes.comfyui.trunk import EngineTrunk
from budc.schema.policy import SamplerBinding


class Denoisers:
    """`patchers` are the MODELs in the order of the policy's denoisers, all of one `family`."""

    def __init__(self, sampler: SamplerBinding, patchers: Sequence[Any], family: EngineFamily) -> None:
        self._sampler = sampler
        self._trunks = [EngineTrunk(patcher.model.diffusion_model, family) for patcher in patchers]
        self.later = tuple(patchers[1:])
        self._entered: list[Any] = []

    def trunk(self, step: int) -> EngineTrunk:
        """Return the trunk of the denoiser that runs at a step."""
        return self._trunks[self._sampler.expert_at(step)]

    def apply_model(self, executor: Any, step: int, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Call the denoiser of a step; arguments are those of `BaseModel.apply_model` of the engine."""
        place = self._sampler.expert_at(step)
        if not place:
            denoised: Tensor = executor(x, *args, **kwargs)
            return denoised
        patcher = self.later[place - 1]
        if patcher not in self._entered:
            self._enter(patcher, x)
        # What the wrapper stands around has this name in the model of every MODEL.
        denoised = getattr(patcher.model, executor.original.__name__)(x, *args, **kwargs)
        return denoised

    def end_run(self) -> None:
        """Let go of the MODELs that have run."""
        while self._entered:
            self._entered.pop().cleanup()

    def _enter(self, patcher: Any, x: Tensor) -> None:
        from comfy.model_management import load_models_gpu

        load_models_gpu([patcher], memory_required=patcher.memory_required(list(x.shape)))
        patcher.pre_run()
        self._entered.append(patcher)
