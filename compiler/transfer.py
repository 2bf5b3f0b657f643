"""Transfer: a policy found on one model becomes one of another model of its family.

Masks and payload are kept. Coefficients depend on what a network's residuals look like, so they are fitted anew along
one rollout on the target's calibration prompts, unless the policy is to stay as it is (`frozen`). With `nearby`, a few
masks near the policy's own are tried as well (`budc.compiler.search.nearby`). The report is measured on the target,
beside the policy as it came, and beside a search on the target where one is asked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from budc.compiler.compatibility import check_family, check_first_steps, check_sampling
from budc.compiler.emit import output_shape, versions, write_artifact
from budc.compiler.evaluation.pipeline_rollout import PipelineRollout
from budc.compiler.evaluation.reference import (
    CALIBRATION_SEED,
    HELD_OUT_SEED,
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
from budc.compiler.search import Candidate
from budc.compiler.selection.finder import Finder
from budc.compiler.selection.task import NoiseSchedule, Task
from budc.compiler.storage.journal import Journal
from budc.policies.profile import ModelProfile, find_weights, load_profile, read_prompts
from budc.policies.published_masks import masks_for
from budc.schema.artifact import Artifact, read
from budc.schema.canonical import digest
from budc.schema.errors import CompileError, UsageError
from budc.schema.files import check_place
from budc.schema.keys import load_signer
from budc.schema.policy import ModelBinding, Policy, PolicyDocument, SamplerBinding, Search
from budc.schema.report_names import FROZEN, NATIVE, OBJECTIVES
from budc.schema.timestamps import issue_time


@dataclass(frozen=True)
class TransferRequest:
    """One transfer. `frozen` keeps the coefficients, `nearby` tries masks near the policy's own, `native` searches on
    the target too, for comparison; `differing` accepts another family, number of steps, scheduler or guidance.
    """

    to: str
    out: Path
    weights: Path | None = None
    frozen: bool = False
    native: bool = False
    differing: bool = False
    key: Path | None = None
    name: str | None = None
    seed: int = 0
    nearby: bool = False


def transfer(source: Artifact, request: TransferRequest) -> Artifact:
    """Write the target's artifact and return it.

    Raises:
        UsageError: masks near the policy's own are asked for, and there is no one mask, or all is to stay.
        UnsupportedModel: the target is of another family, or has other guidance branches or another number of
            denoisers.
        CalibrationMismatch: steps, scheduler, guidance or the steps at which experts take over differ.
        BudcError: see the compiler's passes.
    """
    document = source.document
    if request.nearby:
        _check_nearby(document.policy, request)
    profile = load_profile(request.to)
    check_family(document, profile, request.differing)
    check_supported(profile)
    signer = load_signer(request.key) if request.key else None
    check_place(request.out)
    folder = find_weights(profile, request.weights)
    binding = model_binding(profile, folder)
    model = load_model(profile, folder, default_device())
    own = model.sampler(document.sampler.steps)
    check_sampling(document, profile, own, request.differing)
    # A schedule aligned to the policy goes with it; where the scheduler is another one, the target's own stands.
    same = document.sampler.config_digest == own.config_digest
    sampler = model.with_experts(document.sampler) if same else own
    check_first_steps(document, profile, sampler)
    fingerprint = _fingerprint(source, request, model, binding)
    with Journal(request.out.parent / f".{request.out.name}.{fingerprint[7:19]}", fingerprint) as journal:
        made = _transferred(source, request, model, sampler, binding, journal)
        write_artifact(made, signer, request.out)
        journal.discard()
    return read(request.out)


def _transferred(
    source: Artifact,
    request: TransferRequest,
    model: LoadedModel,
    sampler: SamplerBinding,
    binding: ModelBinding,
    journal: Journal,
) -> PolicyDocument:
    document, profile = source.document, model.profile
    prompts = profile.prompts
    texts = read_prompts(prompts.calibration, prompts.calibration_size)
    nfe, policy, forwards, candidates = document.budget.nfe, document.policy, 0, 0
    beside = {} if request.frozen else {FROZEN: (document.policy, sampler)}
    if request.native or not request.frozen:
        finder = Finder(_task(model, sampler, texts, nfe, request.seed), journal)
        if not request.frozen:
            policy, forwards, candidates = _fitted(document.policy, request, finder, profile)
        if request.native:
            found = finder.find(finder.task)
            beside[NATIVE] = (found.policy, sampler)
            # The full run is shared, so it is counted once.
            forwards += found.forwards - (finder.full_forwards if forwards else 0)
    rollout = PipelineRollout(model)
    full = model.sampler(profile.steps)
    held = read_prompts(prompts.held_out, prompts.held_out_size)
    quality = evaluate(
        policy,
        sampler,
        nfe,
        OBJECTIVES["log-mean"],
        prompt_set(texts, prompts.negative, CALIBRATION_SEED),
        rollout,
        full,
        reference_set(rollout, full, held, HELD_OUT_SEED, journal, "held-out full"),
        journal,
        beside,
    )
    return msgspec.structs.replace(
        document,
        name=request.name or f"{profile.name}-nfe{nfe}",
        revision=1,
        issued_at=issue_time(),
        model=binding,
        sampler=sampler,
        shape=output_shape(profile),
        policy=policy,
        quality=quality,
        search=Search(
            algorithm="transfer",
            seed=request.seed,
            candidates=candidates,
            forwards=forwards,
            settings={
                "frozen": request.frozen,
                "nearby": request.nearby,
                "from": document.name,
                "differing": request.differing,
            },
            versions=versions(),
        ),
        derived_from=source.policy_id,
    )


def _fitted(
    policy: Policy, request: TransferRequest, finder: Finder, profile: ModelProfile
) -> tuple[Policy, int, int]:
    """Return the policy on the target, the forwards spent, full run included, and the number of candidates."""
    if request.nearby:
        steps = policy.branches[0].step_mask().compute_steps
        found = finder.find(replace(finder.task, search="nearby", published_masks=(steps,)))
        return found.policy, found.forwards, found.candidates
    candidate = as_candidate(policy, profile)
    policy, loss, cost = finder.fitted(candidate)
    if not math.isfinite(loss):
        raise CompileError(
            f"candidate {candidate.key}: the final latents are not finite",
            remedy="transfer it with --frozen, or compile a policy for that model",
        )
    return policy, finder.full_forwards + cost, 1


def _check_nearby(policy: Policy, request: TransferRequest) -> None:
    if request.frozen:
        raise UsageError("--nearby fits coefficients, --frozen keeps them", remedy="leave one of them out")
    if len({branch.step_mask() for branch in policy.branches}) > 1:
        raise UsageError(
            "--nearby: the policy's guidance branches have masks of their own",
            remedy="leave it out: the masks then stay, and coefficients are fitted",
        )


def as_candidate(policy: Policy, profile: ModelProfile) -> Candidate:
    """Return a policy's masks and payload, its coefficients to be tracked anew."""
    masks = [policy.for_branch(name).step_mask() for name in profile.branches]
    shared = masks[:1] if all(mask == masks[0] for mask in masks) else masks
    return Candidate(tuple(shared), "tracked", policy.payload)


def _task(model: LoadedModel, sampler: SamplerBinding, texts: tuple[str, ...], nfe: int, seed: int) -> Task:
    return Task(
        denoiser=model_denoiser(model),
        scheduler=model.scheduler,
        schedule=NoiseSchedule(tuple(sampler.sigmas), tuple(sampler.timesteps)),
        conditions=encode_prompts(model, texts, range(CALIBRATION_SEED, CALIBRATION_SEED + len(texts))),
        nfe=nfe,
        annealing=model.profile.search,
        seed=seed,
        published_masks=masks_for(model.profile, sampler.steps, nfe),
        batch=model.adapter.batch,
    )


def _fingerprint(
    source: Artifact, request: TransferRequest, model: LoadedModel, binding: ModelBinding
) -> str:
    return digest(
        {
            "source": source.policy_id,
            "how": [request.frozen, request.nearby, request.native, request.differing, request.seed],
            "profile": msgspec.to_builtins(model.profile),
            "denoisers": msgspec.to_builtins(binding),
            "components": component_digests(model.profile, model.folder),
            "versions": versions(),
            "device": device_name(model.device),
        }
    )
