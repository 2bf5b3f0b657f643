"""Checks: each setting that a policy is bound to, held against the pipeline as it is now.

Each function judges one thing through a `Calibration`, which refuses the difference or lets it run as
uncalibrated. None of them changes anything.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from budc.runtimes.admission.settings import SettingsCheck
from budc.runtimes.diffusers.conflicts import active_adapters
from budc.runtimes.sampling.families import Family
from budc.runtimes.sampling.schedulers import config_differences, first_steps, passed_sigmas
from budc.schema.errors import CalibrationMismatch
from budc.schema.policy import PolicyDocument


def check_schedule(
    document: PolicyDocument, asked: int, arguments: Mapping[str, Any], family: Family
) -> None:
    """Refuse a run of another number of steps, or with a schedule of the caller's own.

    This is never a matter of calibration: mask, predictor and sigmas have exactly `steps` entries.
    `arguments` are the keyword arguments that the pipeline gave to `set_timesteps`.
    """
    steps = document.sampler.steps
    if asked != steps:
        raise CalibrationMismatch(
            f"steps: the policy has {steps}, this run asks for {asked}",
            remedy=f"pass num_inference_steps={steps}, or apply a policy of {asked} steps",
        )
    given = arguments.get("sigmas")
    usual = passed_sigmas(steps, family.sigmas)
    custom = given is not None and [float(sigma) for sigma in given] != usual
    if custom or arguments.get("timesteps") is not None:
        name = "sigmas" if custom else "timesteps"
        raise CalibrationMismatch(
            f"{name}: the policy brings its own schedule, this run passes another",
            remedy=f"do not pass {name} to the pipeline while a policy is applied",
        )


def check_guidance(document: PolicyDocument, pipe: Any, calibration: SettingsCheck, family: Family) -> None:
    """Judge the guidance scale that the pipeline was called with, and what else bends or ends guidance.

    Without guidance a scale says nothing, except where it decides whether the forward is a batched pair. Guidance
    that ends within a run is refused in any case there: residuals of a pair do not fit a forward of one branch.
    """
    sampler = document.sampler
    scale = getattr(pipe, "_guidance_scale", None)
    matters = sampler.guidance_rule != "none" or bool(family.batched)
    if matters and scale is not None:
        remedy = f"pass guidance_scale={sampler.guidance:g}"
        calibration.require("guidance", float(sampler.guidance), float(scale), remedy)
    second = getattr(pipe, "_guidance_scale_2", None)
    if matters and second is not None:
        for expert in sampler.experts:
            field, remedy = f"guidance of {expert.denoiser}", f"pass guidance_scale_2={expert.guidance:g}"
            calibration.require(field, float(expert.guidance), float(second), remedy)
    if not family.batched or sampler.guidance_rule != "classifier-free":
        return
    truncation = getattr(pipe, "_cfg_truncation", None)
    if truncation is not None and float(truncation) < 1:
        raise CalibrationMismatch(
            f"cfg_truncation: is {truncation:g}, guidance ends within the run, but the policy guides every step",
            remedy="leave cfg_truncation at 1",
        )
    rescaled = float(getattr(pipe, "_cfg_normalization", 0.0))
    calibration.require("cfg_normalization", 0.0, rescaled, "leave cfg_normalization out")


def check_experts(document: PolicyDocument, pipe: Any) -> None:
    """Refuse a pipeline whose denoisers take over from each other at other steps than the policy's.

    This is never a matter of calibration: a first step is computed, and residuals do not cross it.
    """
    sampler = document.sampler
    if not sampler.experts:
        return
    ratio = pipe.config.get("boundary_ratio")
    boundaries = () if ratio is None else (ratio * pipe.scheduler.config.num_train_timesteps,)
    found = first_steps(sampler.timesteps, boundaries)
    if found != sampler.first_steps:
        names = ", ".join(expert.denoiser for expert in sampler.experts)
        raise CalibrationMismatch(
            f"boundary_ratio: {names} takes over at step {_listed(sampler.first_steps)} under the policy, "
            f"in this pipeline at step {_listed(found)} (boundary_ratio {ratio})",
            remedy="load the pipeline with the boundary_ratio of the model that the policy was compiled for",
        )


def _listed(steps: Iterable[int]) -> str:
    return ", ".join(map(str, steps)) or "none"


def unnamed_branches(document: PolicyDocument, pipe: Any, family: Family) -> tuple[str, ...]:
    """Return the branches of a forward that a pipeline does not name, in the order of their rows; empty if unknown.

    Raises:
        CalibrationMismatch: they come in one forward, and the policy has separate masks for them.
    """
    branches = document.policy.branches
    names = tuple(name for branch in branches for name in branch.names)
    if document.sampler.guidance_rule != "classifier-free":
        return names if len(names) == 1 else ()
    if set(family.batched) != set(names):
        return ()
    if len({tuple(branch.mask) for branch in branches}) > 1:
        raise CalibrationMismatch(
            f"branch: the policy has separate masks for {', '.join(names)}, "
            f"{type(pipe).__name__} runs them in one forward",
            remedy="use a policy whose branches share one mask",
        )
    return family.batched


def check_dtype(document: PolicyDocument, transformer: Any, calibration: SettingsCheck) -> None:
    """Judge the dtype that the transformer computes in."""
    dtype = str(transformer.dtype).removeprefix("torch.")
    calibration.require("dtype", document.shape.dtype, dtype, "load the pipeline in the calibrated dtype")


def check_sampler(document: PolicyDocument, scheduler: Any, calibration: SettingsCheck) -> None:
    """Judge the scheduler's class and every setting of it that the policy is bound to."""
    sampler = document.sampler
    calibration.require("scheduler", sampler.scheduler, type(scheduler).__name__)
    if sampler.scheduler == type(scheduler).__name__:
        differences = config_differences(sampler.config, scheduler)
        wanted = ", ".join(f"{name}={expected!r}" for name, (expected, _) in differences.items())
        remedy = (
            f"pipe.scheduler = {sampler.scheduler}.from_config(pipe.scheduler.config, {wanted}), then apply"
        )
        calibration.require_settings("scheduler", differences, remedy)


def check_adapters(document: PolicyDocument, transformer: Any, calibration: SettingsCheck) -> None:
    """Judge the adapters that are active on the transformer."""
    rule, active = document.model.adapters.rule, active_adapters(transformer)
    if rule == "any" or not active:
        return
    names = ", ".join(active)
    if rule == "listed":
        what = f"the policy lists adapters by file digest, which a loaded one ({names}) no longer shows"
    else:
        what = f"the policy was calibrated for none, this run has {names}"
    calibration.differ("adapters", what, "unload or disable the adapters")
