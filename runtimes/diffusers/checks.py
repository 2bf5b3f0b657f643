"""Checks: each setting that a policy is bound to, compared with the pipeline as it is now.

Each function compares one thing. Differences go to a `SettingsCheck`, which refuses them or lets the run be
uncalibrated; a few are always refused. Nothing is changed.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from budc.runtimes.admission.additions import APPLY, check_additions
from budc.runtimes.admission.settings import SettingsCheck
from budc.runtimes.diffusers.model_record import ModelRecord
from budc.runtimes.diffusers.negative_prompt import unseen_additions
from budc.runtimes.diffusers.own_layers import OwnLayers
from budc.runtimes.sampling.families import Family
from budc.runtimes.sampling.scheduler_config import config_differences
from budc.runtimes.sampling.schedulers import first_steps, passed_sigmas
from budc.schema.errors import CalibrationMismatch
from budc.schema.policy import PolicyDocument


def check_additions_of(documents: Sequence[PolicyDocument], pipe: Any) -> None:
    """Refuse policies that use what this runtime cannot run. Raises UnsupportedVersion."""
    for document in documents:
        check_additions(document, APPLY, without=unseen_additions(pipe))


def check_schedules(documents: Sequence[PolicyDocument], pipe: Any, settings: SettingsCheck) -> None:
    """Check the scheduler, and how it is split between denoisers, for each policy. Raises CalibrationMismatch."""
    for document in documents:
        check_sampler(document, pipe.scheduler, settings)
        check_experts(document, pipe)


def check_schedule(
    document: PolicyDocument, run_steps: int, arguments: Mapping[str, Any], family: Family
) -> None:
    """Refuse a run of another number of steps, or with a schedule of the caller's own.

    These are always refused: mask, predictor and sigmas have exactly `steps` entries. `arguments` are the keyword
    arguments that the pipeline gave to `set_timesteps`.
    """
    steps = document.sampler.steps
    if run_steps != steps:
        raise CalibrationMismatch(
            f"steps: the policy has {steps}, this run asks for {run_steps}",
            remedy=f"pass num_inference_steps={steps}, or apply a policy of {run_steps} steps",
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


def check_guidance(document: PolicyDocument, pipe: Any, settings: SettingsCheck, family: Family) -> None:
    """Check the guidance scale that the pipeline was called with, and what else changes or ends guidance.

    A policy without guidance is not bound to a scale, except where the scale decides whether a forward is a batched
    pair. In such pipelines guidance that ends within a run is always refused: what is cached for a pair does not fit a
    forward of one branch.
    """
    sampler = document.sampler
    scale = getattr(pipe, "_guidance_scale", None)
    matters = sampler.guidance_rule != "none" or bool(family.batched)
    if matters and scale is not None:
        remedy = f"pass guidance_scale={sampler.guidance:g}"
        settings.require("guidance", float(sampler.guidance), float(scale), remedy)
    second = getattr(pipe, "_guidance_scale_2", None)
    if matters and second is not None:
        for expert in sampler.experts:
            field, remedy = f"guidance of {expert.denoiser}", f"pass guidance_scale_2={expert.guidance:g}"
            settings.require(field, float(expert.guidance), float(second), remedy)
    if not family.batched or sampler.guidance_rule != "classifier-free":
        return
    truncation = getattr(pipe, "_cfg_truncation", None)
    if truncation is not None and float(truncation) < 1:
        raise CalibrationMismatch(
            f"cfg_truncation: is {truncation:g}, which ends guidance within the run, but the policy guides every step",
            remedy="leave cfg_truncation at 1",
        )
    rescaled = float(getattr(pipe, "_cfg_normalization", 0.0))
    settings.require("cfg_normalization", 0.0, rescaled, "leave cfg_normalization out")


def check_experts(document: PolicyDocument, pipe: Any) -> None:
    """Refuse a pipeline whose denoisers take over from each other at other steps than the policy's.

    This is always refused: a denoiser's first step is computed, and nothing cached is carried over to it.
    """
    sampler = document.sampler
    if not sampler.experts:
        return
    ratio = pipe.config.get("boundary_ratio")
    boundaries = () if ratio is None else (ratio * pipe.scheduler.config.num_train_timesteps,)
    first = first_steps(sampler.timesteps, boundaries)
    if first != sampler.first_steps:
        names = ", ".join(expert.denoiser for expert in sampler.experts)
        raise CalibrationMismatch(
            f"boundary_ratio: {names} takes over at step {_listed(sampler.first_steps)} under the policy, "
            f"in this pipeline at step {_listed(first)} (boundary_ratio {ratio})",
            remedy="load the pipeline with the boundary_ratio of the model that the policy was compiled for",
        )


def _listed(steps: Iterable[int]) -> str:
    return ", ".join(map(str, steps)) or "none"


def unnamed_branches(document: PolicyDocument, pipe: Any, family: Family) -> tuple[str, ...]:
    """Return the branches of a forward whose pipeline names none, in the order of their rows; empty if unknown.

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


def check_sampler(document: PolicyDocument, scheduler: Any, settings: SettingsCheck) -> None:
    """Check the scheduler's class and every setting of it that the policy is bound to."""
    sampler = document.sampler
    settings.require("scheduler", sampler.scheduler, type(scheduler).__name__)
    if sampler.scheduler == type(scheduler).__name__:
        differences = config_differences(sampler.config, scheduler)
        wanted = ", ".join(f"{name}={expected!r}" for name, (expected, _) in differences.items())
        remedy = (
            f"pipe.scheduler = {sampler.scheduler}.from_config(pipe.scheduler.config, {wanted}), then apply"
        )
        settings.require_settings("scheduler", differences, remedy)


def check_unchanged(
    document: PolicyDocument, name: str, record: ModelRecord, layers: OwnLayers, settings: SettingsCheck
) -> None:
    """Check that the denoiser `name`, with these layers now, is still as it was when `record` was made."""
    change = record.change(layers, adapters_allowed=document.model.adapters.rule == "any")
    if change is not None:
        settings.differ(
            "model",
            f"pipe.{name} has changed since the policy was applied: {change}",
            "remove the policy, load the model anew, then apply the policy",
        )
