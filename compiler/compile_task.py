"""The task of a compile at one budget, what its measurements depend on, and the sampler that its policy is for."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from budc.compiler.compile_plan import CompilePlan
from budc.compiler.loaded_target import LoadedTarget
from budc.compiler.metrics import digest_of
from budc.compiler.metrics.lpips_network import load_lpips
from budc.compiler.models.model import LoadedModel
from budc.compiler.selection.task import SearchResult, Task
from budc.compiler.training.frame_loss import FrameLoss
from budc.runtimes.targets.deployment_target import DeploymentTarget
from budc.schema.policy import Payload, SamplerBinding


def compile_task(plan: CompilePlan, loaded: LoadedTarget, sampler: SamplerBinding, nfe: int) -> Task:
    """Return the task of finding a policy of `nfe` evaluations as the plan wants it."""
    task = _for_engine(loaded.task(sampler, nfe, plan.seed), plan, loaded)
    if plan.mask is not None:
        task = replace(task, published_masks=(plan.mask.compute_steps,))
    return replace(
        task,
        search=plan.search,
        effort=plan.effort,
        align=plan.align,
        train=plan.train,
        frame_loss=_frame_loss(plan, loaded),
        separate=plan.separate,
        proposed=plan.batch,
        judged=plan.quality is not None,
        few_step_schedule=loaded.schedule(loaded.model.sampler(nfe)) if plan.auto_steps else None,
    )


def _frame_loss(plan: CompilePlan, loaded: LoadedTarget) -> FrameLoss | None:
    """Return the loss of the paper's second stage, None where it is the error of latents."""
    if plan.lpips is None:
        return None
    device = loaded.model.device
    distance = load_lpips("alex", plan.lpips).to(device)
    return FrameLoss("lpips", loaded.decode, distance, device, digest_of(plan.lpips))


def _for_engine(task: Task, plan: CompilePlan, loaded: LoadedTarget) -> Task:
    """Return the task with the payload, the rule and the masks of the engine that the policy is for."""
    engine = plan.engine
    if engine is None or engine.rule == "none":
        return task
    payload, first_blocks = recorded_for(engine)
    steps = task.schedule.steps
    if engine.masks is not None and plan.mask is None:
        masks = tuple(mask.compute_steps for mask in engine.masks(steps, task.nfe))
        task = replace(task, published_masks=masks)
    return replace(
        task,
        denoiser=loaded.recording(payload, first_blocks),
        payloads=(payload,),
        rule=engine.rule,
        always=engine.always_computed(steps),
    )


def recorded_for(engine: DeploymentTarget | None) -> tuple[Payload, int]:
    """Return what the denoiser of a search records, and how many first blocks run at reused steps, for an engine."""
    if engine is None or engine.rule == "none":
        return "trunk-residual", 0
    return engine.payload, engine.first_blocks


def measured_settings(plan: CompilePlan, sampler: SamplerBinding) -> dict[str, object]:
    """Return what measurements depend on beside the target."""
    return {
        "budgets": [planned.nfe for planned in plan.policies],
        "search": [plan.search, plan.effort, plan.align, plan.train, plan.separate, plan.auto_steps],
        "mask": None if plan.mask is None else plan.mask.compute_steps,
        "asked": [None if plan.quality is None else str(plan.quality), plan.within],
        **({} if plan.engine is None else {"for": plan.engine.name}),
        **({} if plan.lpips is None else {"lpips": digest_of(plan.lpips)}),
        **({"batch": plan.batch} if plan.batch > 1 else {}),
        **({} if plan.proxy is None else {"proxy": list(plan.proxy)}),
        "seed": plan.seed,
        "sampler": msgspec.to_builtins(sampler),
    }


def deployed_sampler(model: LoadedModel, full: SamplerBinding, result: SearchResult) -> SamplerBinding:
    """Return the binding to the schedule that the policy was found on."""
    schedule = result.schedule
    if not result.aligned:
        return full if schedule.steps == full.steps else model.sampler(schedule.steps)
    aligned = msgspec.structs.replace(
        full, steps=schedule.steps, sigmas=list(schedule.sigmas), timesteps=list(schedule.timesteps)
    )
    return model.with_experts(aligned)
