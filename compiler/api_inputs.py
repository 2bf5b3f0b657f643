"""What a user hands to `compile_policy`, checked and in the form that the compiler works on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from budc.compiler.denoisers.callables import CallableDenoiser
from budc.compiler.denoisers.conditioning import Condition, Conditioning, named_tensors
from budc.compiler.denoisers.denoiser import Denoiser
from budc.compiler.denoisers.module import ModuleDenoiser
from budc.compiler.rollouts.schedule import NoiseSchedule
from budc.schema.errors import SemanticsViolation, UsageError
from budc.schema.sigmas import Sigmas

Pair = tuple[
    Callable[[Tensor, Tensor, Any], tuple[Tensor, Tensor]],
    Callable[[Tensor, Tensor, Tensor, Any], Tensor],
]
"""`compute(latents, timestep, condition)` and `reuse(residual, latents, timestep, condition)`."""


def noise_schedule(
    scheduler: Any, sigmas: Sequence[float], timesteps: Sequence[float] | None
) -> NoiseSchedule:
    """Return the schedule; timesteps are by default the sigmas times the scheduler's training timesteps.

    Raises:
        UsageError: not one timestep a step.
        SemanticsViolation: see `Sigmas`.
    """
    try:
        levels = tuple(Sigmas.of(sigmas))
    except SemanticsViolation as error:
        raise SemanticsViolation(
            str(error), remedy="give steps + 1 noise levels, strictly decreasing, terminal value included"
        ) from error
    if timesteps is None:
        scale = float(getattr(getattr(scheduler, "config", None), "num_train_timesteps", 1000))
        timesteps = [sigma * scale for sigma in levels[:-1]]
    if len(timesteps) != len(levels) - 1:
        raise UsageError(
            f"timesteps has {len(timesteps)} values and sigmas has {len(levels)}, expected {len(levels) - 1} timesteps",
            remedy="give one timestep a step; sigmas has one value more, the last noise level",
        )
    return NoiseSchedule.of(scheduler, levels, timesteps)


def branch_weights(
    conditioning: Mapping[str, Condition], guidance: Mapping[str, float] | None
) -> Mapping[str, float]:
    """Return each branch's weight in the guided velocity; a lone branch's is 1.

    Raises:
        UsageError: guidance and conditioning have other branches.
    """
    if guidance is None and len(conditioning) == 1:
        return dict.fromkeys(conditioning, 1.0)
    if guidance is None or guidance.keys() != conditioning.keys():
        raise UsageError(
            f"guidance has the branches {sorted(guidance or ())}, conditioning has {sorted(conditioning)}",
            remedy='give each branch its weight, such as {"cond": 5.0, "uncond": -4.0} for a scale of 5',
        )
    return guidance


def sample_conditions(conditioning: Mapping[str, Condition], noise: Tensor, name: str) -> Conditioning:
    """Return conditions and noise on the CPU, noise in float32; `name` is the argument that held the conditions.

    Raises:
        UsageError: another number of samples than there is noise for, or none.
    """
    for branch, condition in conditioning.items():
        for key, tensor in named_tensors(condition).items():
            if len(tensor) != len(noise):
                where = f"{name}[{branch!r}]" + (f"[{key!r}]" if key else "")
                raise UsageError(
                    f"{where} has {len(tensor)} samples, noise has {len(noise)}",
                    remedy="give every sample a condition of each branch, and noise",
                )
    if len(noise) == 0:
        raise UsageError(f"{name} holds no sample", remedy="give conditions and noise of a few samples")
    return Conditioning(dict(conditioning), noise.float()).to(torch.device("cpu"))


def as_denoiser(
    denoiser: nn.Module | Pair | Denoiser, weights: Mapping[str, float], blocks: str, device: torch.device
) -> Denoiser:
    """Return what was given as a denoiser; a pair of functions runs on `device`.

    Raises:
        UnsupportedModel: see `ModuleDenoiser`.
    """
    if isinstance(denoiser, nn.Module):
        return ModuleDenoiser(denoiser, weights, blocks)
    if isinstance(denoiser, tuple):
        return CallableDenoiser(*denoiser, weights, device)
    return denoiser
