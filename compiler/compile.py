"""The compile itself: the passes in order, resumed where an earlier call was killed."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec

from budc.compiler.denoisers.conditioning import Conditioning
from budc.compiler.emit import artifact_name, make_document, versions, write_artifact
from budc.compiler.evaluation.pipeline_rollout import PipelineRollout
from budc.compiler.evaluation.reference import (
    CALIBRATION_SEED,
    HELD_OUT_SEED,
    ReferenceSet,
    encode_prompts,
    prompt_set,
    reference_set,
)
from budc.compiler.evaluation.report import evaluate
from budc.compiler.models.binding import model_binding
from budc.compiler.models.denoiser import model_denoiser
from budc.compiler.models.folder import component_digests
from budc.compiler.models.model import LoadedModel, default_device, device_name, load_model
from budc.compiler.models.supported import check_supported
from budc.compiler.request import CompileRequest, check_request
from budc.compiler.search import algorithm
from budc.compiler.selection.finder import compile_policies
from budc.compiler.selection.task import NoiseSchedule, SearchResult, Task, searched_on
from budc.compiler.storage.journal import Journal
from budc.policies.profile import ModelProfile, find_weights, read_prompts
from budc.policies.published_masks import masks_for
from budc.progress import hashing
from budc.schema.artifact import SUFFIX, Artifact, read
from budc.schema.canonical import digest
from budc.schema.digest_cache import DigestCache
from budc.schema.errors import OutputError, UsageError
from budc.schema.files import check_place
from budc.schema.keys import load_public, load_signer
from budc.schema.policy import ModelBinding, SamplerBinding
from budc.schema.report_names import OBJECTIVES


class Prompts(NamedTuple):
    """What is searched on and what is reported on; they share no prompt and no noise."""

    calibration: tuple[str, ...]
    held_out: tuple[str, ...]


def _outputs(request: CompileRequest, names: dict[int, str]) -> dict[int, Path]:
    if request.sweep is None:
        ((nfe, name),) = names.items()
        path = request.out or Path(f"{name}{SUFFIX}")
        check_place(path)
        return {nfe: path}
    folder = request.out or Path()
    if not folder.is_dir():
        raise OutputError(f"--out: {folder} is not an existing folder, and a sweep writes several files")
    paths = {nfe: folder / f"{name}{SUFFIX}" for nfe, name in names.items()}
    for path in paths.values():
        check_place(path)
    return paths


def _prompts(request: CompileRequest, profile: ModelProfile) -> Prompts:
    sizes = profile.prompts
    calibration = read_prompts(
        request.calibration or sizes.calibration, None if request.calibration else sizes.calibration_size
    )
    held_out = read_prompts(sizes.held_out, sizes.held_out_size)
    if shared := set(calibration) & set(held_out):
        raise UsageError(
            f"--calibration: {len(shared)} of the prompts are held out, the first is {sorted(shared)[0]!r}",
            remedy="calibrate on prompts that the report is not measured on",
        )
    return Prompts(calibration, held_out)


def _fingerprint(
    request: CompileRequest,
    model: LoadedModel,
    binding: ModelBinding,
    sampler: SamplerBinding,
    prompts: Prompts,
    digests: DigestCache,
) -> str:
    """Digest of all that a measurement depends on; name, key and output path are not among it."""
    return digest(
        {
            "budget": request.sweep or request.budget,
            "search": [request.search, request.align, request.branches, str(request.steps)],
            "seed": request.seed,
            "profile": msgspec.to_builtins(model.profile),
            "sampler": msgspec.to_builtins(sampler),
            "denoisers": msgspec.to_builtins(binding),
            "components": component_digests(model.profile, model.folder, digests),
            "prompts": [list(part) for part in prompts],
            "versions": versions(),
            "device": device_name(model.device),
        }
    )


def compile_artifacts(request: CompileRequest) -> list[Artifact]:
    """Compile a policy for every budget and write the artifacts; return what was written.

    Raises:
        BudcError: see the passes; everything that can be refused is refused before the first rollout.
    """
    profile, steps, budgets = check_request(request)
    public = load_public(request.public) if request.public else None
    signer = load_signer(request.key, public=public) if request.key else None
    paths = _outputs(request, {nfe: artifact_name(request, profile, nfe) for nfe in budgets})
    prompts = _prompts(request, profile)
    searched_on(request.search, len(prompts.calibration), judged=request.align or request.steps == "auto")
    check_supported(profile)
    folder = find_weights(profile, request.weights, download=request.download)
    digests = DigestCache.of_user(watch=hashing, rehash=request.rehash)
    binding = model_binding(profile, folder, digests)
    device = default_device()
    if device.type == "cpu" and not profile.embedded:
        print(
            f"no CUDA device: {profile.title} will be compiled on the CPU, which takes days", file=sys.stderr
        )
    model = load_model(profile, folder, device)
    sampler = model.sampler(steps)
    fingerprint = _fingerprint(request, model, binding, sampler, prompts, digests)
    first = next(iter(paths.values()))
    with Journal(first.parent / f".{first.name}.{fingerprint[7:19]}", fingerprint) as journal:
        if journal.records:
            print(f"resuming: {len(journal.records)} measurements are in {journal.folder}", file=sys.stderr)
        rollout = PipelineRollout(
            model, journal.get("batch"), halved=lambda batch: journal.put("batch", batch)
        )
        seeds = range(CALIBRATION_SEED, CALIBRATION_SEED + len(prompts.calibration))
        calibration = encode_prompts(model, prompts.calibration, seeds)
        held: ReferenceSet | None = None
        task = _task(request, model, sampler, calibration, next(iter(budgets)))
        for nfe, found in compile_policies(task, list(budgets), journal, partial(_vary, request, model)):
            held = held or reference_set(
                rollout, sampler, prompts.held_out, HELD_OUT_SEED, journal, "held-out full"
            )
            deployed = _deployed(model, sampler, found)
            quality = evaluate(
                found.policy,
                deployed,
                nfe,
                OBJECTIVES[algorithm(request.search).objective],
                prompt_set(prompts.calibration, profile.prompts.negative, CALIBRATION_SEED),
                rollout,
                sampler,
                held,
                journal,
            )
            document = make_document(request, profile, binding, deployed, budgets[nfe], nfe, found, quality)
            write_artifact(document, signer, paths[nfe])
        journal.discard()
    return [read(path) for path in paths.values()]


def _task(
    request: CompileRequest, model: LoadedModel, sampler: SamplerBinding, conditions: Conditioning, nfe: int
) -> Task:
    return Task(
        denoiser=model_denoiser(model),
        scheduler=model.scheduler,
        schedule=_schedule(sampler),
        conditions=conditions,
        nfe=nfe,
        annealing=model.profile.search,
        search=request.search,
        seed=request.seed,
        align=request.align,
        separate=request.branches == "separate",
        batch=model.adapter.batch,
    )


def _vary(request: CompileRequest, model: LoadedModel, task: Task, nfe: int) -> Task:
    """Return the task with what depends on the budget: published schedules, and a few steps' own schedule."""
    return replace(
        task,
        published_masks=masks_for(model.profile, task.schedule.steps, nfe),
        few_step_schedule=_schedule(model.sampler(nfe)) if request.steps == "auto" else None,
    )


def _schedule(sampler: SamplerBinding) -> NoiseSchedule:
    return NoiseSchedule(tuple(sampler.sigmas), tuple(sampler.timesteps))


def _deployed(model: LoadedModel, full: SamplerBinding, found: SearchResult) -> SamplerBinding:
    """Return the binding to the schedule that the policy was found on."""
    schedule = found.schedule
    if not found.aligned:
        return full if schedule.steps == full.steps else model.sampler(schedule.steps)
    aligned = msgspec.structs.replace(
        full, steps=schedule.steps, sigmas=list(schedule.sigmas), timesteps=list(schedule.timesteps)
    )
    return model.with_experts(aligned)
