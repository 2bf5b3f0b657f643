"""What a user hands to `compile_policy` beside samples, checked and in the form that the compiler works on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from budc.compiler.denoisers.callables import CallableDenoiser
from budc.compiler.denoisers.denoiser import Denoiser
from budc.compiler.denoisers.module import ModuleDenoiser
from budc.compiler.rollouts.schedule import NoiseSchedule
from budc.schema.arguments import described
from budc.schema.errors import SemanticsViolation, UsageError
from budc.schema.sigmas import Sigmas

Pair = tuple[
    Callable[[Tensor, Tensor, Any], tuple[Tensor, Tensor]],
    Callable[[Tensor, Tensor, Tensor, Any], Tensor],
]
"""`compute(latents, timestep, condition)` and `reuse(residual, latents, timestep, condition)`."""

_SIGMAS = "give steps + 1 noise levels from 1 down, strictly decreasing, terminal value included"
_TIMESTEPS = "give one timestep a step; sigmas has one value more, the last noise level"
_ROUNDING = 1e-6
_LARGEST_SCALE = 1000
"""Of guidance, that an error repeats as weights."""


def noise_schedule(
    scheduler: Any, sigmas: Sequence[float] | Tensor, timesteps: Sequence[float] | Tensor | None
) -> NoiseSchedule:
    """Return the schedule; timesteps are by default the sigmas times the scheduler's training timesteps.

    Raises:
        UsageError: not a scheduler, not numbers, sigmas above 1 or without their end, or not one timestep a step.
        SemanticsViolation: see `Sigmas`.
        UnsupportedModel: see `linear_form`.
    """
    check_scheduler(scheduler)
    try:
        levels = tuple(Sigmas.of(_numbers(sigmas, "sigmas", _SIGMAS)))
    except SemanticsViolation as error:
        raise SemanticsViolation(str(error), remedy=_SIGMAS) from error
    if levels[0] > 1:
        raise UsageError(
            f"sigmas begin at {levels[0]:g}, but noise levels of flow matching are at most 1",
            remedy="divide timesteps by the number of training timesteps",
        )
    if timesteps is None:
        scale = float(scheduler.config.get("num_train_timesteps", 1000))
        times = [sigma * scale for sigma in levels[:-1]]
    else:
        times = _numbers(timesteps, "timesteps", _TIMESTEPS)
    if len(times) != len(levels) - 1:
        raise UsageError(
            f"timesteps has {len(times)} values and sigmas has {len(levels)}, expected {len(levels) - 1} timesteps",
            remedy=_TIMESTEPS,
        )
    schedule = NoiseSchedule.of(scheduler, levels, times)
    schedule.linear_form()
    terminal = schedule.default_terminal()
    if all(abs(levels[-1] - value) > _ROUNDING for value in (0.0, terminal)):
        raise UsageError(
            f"sigmas end at {levels[-1]:g}, where a run of {type(scheduler).__name__} ends at {terminal:g}",
            remedy=f"append the terminal value {terminal:g}: sigmas has one value more than there are steps",
        )
    return schedule


def branch_weights(
    conditioning: Mapping[str, Any], guidance: Mapping[str, float] | None
) -> Mapping[str, float]:
    """Return each branch's weight in the guided velocity; a lone branch's is 1.

    Raises:
        UsageError: not numbers that add up to one, or guidance and conditioning have other branches.
    """
    example = '{"cond": 5.0, "uncond": -4.0} for a scale of 5'
    if guidance is None and len(conditioning) == 1:
        return dict.fromkeys(conditioning, 1.0)
    if guidance is not None and not isinstance(guidance, Mapping):
        if isinstance(guidance, int | float) and abs(guidance) < _LARGEST_SCALE:
            example = f'{{"cond": {guidance:g}, "uncond": {1 - guidance:g}}} for this scale'
        raise UsageError(
            f"guidance: {described(guidance)} is not a weight for each branch",
            remedy=f"give each branch of conditioning its weight in the guided velocity, such as {example}",
        )
    if guidance is None or guidance.keys() != conditioning.keys():
        raise UsageError(
            f"guidance has the branches {sorted(map(str, guidance or ()))}, conditioning has "
            f"{sorted(map(str, conditioning))}",
            remedy=f"give each branch its weight, such as {example}",
        )
    weights = dict(
        zip(
            guidance, _numbers(guidance.values(), "guidance", f"give numbers, such as {example}"), strict=True
        )
    )
    if abs(sum(weights.values()) - 1) > _ROUNDING:
        raise UsageError(
            f"guidance: the weights add up to {sum(weights.values()):g}, expected 1",
            remedy=f"give the weights of a scale g as g and 1 - g, such as {example}",
        )
    return weights


def as_denoiser(denoiser: Any, weights: Mapping[str, float], blocks: str, device: torch.device) -> Denoiser:
    """Return what was given as a denoiser; a pair of functions runs on `device`.

    Raises:
        UsageError: it is none.
        UnsupportedModel: see `ModuleDenoiser`.
    """
    if isinstance(denoiser, nn.Module):
        if not isinstance(blocks, str):
            raise UsageError(
                f"blocks: {described(blocks)} is no name",
                remedy="give the name of the ModuleList that the module loops over, such as 'blocks'",
            )
        return ModuleDenoiser(denoiser, weights, blocks)
    if isinstance(denoiser, tuple | list) and len(denoiser) == 2 and all(map(callable, denoiser)):
        compute, reuse = denoiser
        return CallableDenoiser(compute, reuse, weights, device)
    if isinstance(denoiser, type) or not all(
        hasattr(denoiser, name) for name in ("branches", "compute", "reuse", "guide", "first_steps")
    ):
        raise UsageError(
            f"denoiser: {described(denoiser)} is neither a module nor a pair of functions nor a Denoiser",
            remedy="pass an instance of nn.Module, (compute, reuse), or an object with the methods of Denoiser",
        )
    given: Denoiser = denoiser
    return given


def check_scheduler(scheduler: Any) -> None:
    """Refuse what is no scheduler of diffusers. Raises UsageError."""
    members = ("config", "set_timesteps", "step")
    if isinstance(scheduler, type) or not all(hasattr(scheduler, name) for name in members):
        what = f"the class {scheduler.__name__}" if isinstance(scheduler, type) else described(scheduler)
        raise UsageError(
            f"scheduler: {what} is no scheduler of diffusers",
            remedy="pass an instance, such as FlowMatchEulerDiscreteScheduler()",
        )


def _numbers(values: Any, name: str, remedy: str) -> list[float]:
    """Return finite numbers of a sequence, an array or a tensor as floats."""
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise UsageError(
            f"{name}: {described(values)} is not a sequence of numbers", remedy=remedy
        ) from error
    for index, number in enumerate(numbers):
        if not math.isfinite(number):
            raise UsageError(f"{name}: number {index} is {number}", remedy=remedy)
    return numbers
