"""The sampler of a policy, as a sampler function of ComfyUI: its own solver, one evaluation a step.

    sampler = comfy.samplers.KSAMPLER(policy_sampler(document.sampler))

ComfyUI's `euler` is diffusers' flow-matching Euler; its `uni_pc` is another method than diffusers' UniPC on the flow
ODE, so policies bring the solver that they were searched with, as the matrices of `budc.runtimes.sampling.solvers`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from budc.runtimes.sampling.solvers import solver_matrices
from budc.schema.policy import SamplerBinding

BINDING = "budc_binding"
"""Attribute of a policy's sampler function: the `SamplerBinding` that it was made from."""


def policy_sampler(binding: SamplerBinding) -> Callable[..., Tensor]:
    """Return the sampler function of a binding; it takes what ComfyUI's own take, and sigmas of as many steps.

    Raises:
        UnsupportedModel: the scheduler, or a setting of it, has no solver here.
    """
    matrices = solver_matrices(binding).tolist()

    @torch.no_grad()
    def sample_policy(
        model: Any,
        x: Tensor,
        sigmas: Tensor,
        extra_args: Any = None,
        callback: Any = None,
        disable: Any = None,
    ) -> Tensor:
        from tqdm.auto import trange

        memory = [torch.zeros_like(x) for _ in matrices[0][1:]]
        ones = x.new_ones([len(x)])
        for step in trange(len(matrices), disable=disable):
            denoised = model(x, sigmas[step] * ones, **(extra_args or {}))
            velocity = (x - denoised) / sigmas[step]
            if callback is not None:
                progress = {"sigma": sigmas[step], "sigma_hat": sigmas[step], "denoised": denoised}
                callback({"x": x, "i": step, **progress})
            state = [x, *memory, velocity]
            x, *memory = (_combination(row, state) for row in matrices[step])
        return x

    setattr(sample_policy, BINDING, binding)
    return sample_policy


def _combination(weights: list[float], tensors: list[Tensor]) -> Tensor:
    terms = [tensor * weight for weight, tensor in zip(weights, tensors, strict=True) if weight]
    return sum(terms[1:], terms[0]) if terms else torch.zeros_like(tensors[0])
