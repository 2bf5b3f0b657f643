"""Transfer: a policy found on one model becomes one of another model of its family.

Masks and payload are kept. Coefficients depend on what a network's residuals look like, so they are fitted anew along
one rollout on the target's calibration prompts, unless the policy is to stay as it is (`frozen`). The policy's own are
kept where they lose less; the better ones are refined. With `nearby`, a few masks near the policy's own are tried as
well (`budc.compiler.search.nearby`). The report is measured on the target, beside the policy as it came, and beside a
search on the target where one is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import msgspec

from budc.compiler.compatibility import check_first_steps, check_scheduler
from budc.compiler.emit import conditioning_images, output_shape, versions, write_artifact
from budc.compiler.evaluation.report import SampledPolicy
from budc.compiler.loaded_target import LoadedTarget, load_target
from budc.compiler.rollouts.workers import SearchWorkers
from budc.compiler.selection.calibration import Calibration
from budc.compiler.selection.finder import Finder
from budc.compiler.selection.settings import choices
from budc.compiler.selection.task import ForwardCount, Task
from budc.compiler.storage.journal import Journal
from budc.compiler.transfer_request import TransferPlan
from budc.compiler.transfer_work import NEARBY_SEARCH, transfer_work
from budc.compiler.workers.pool import Pool
from budc.compiler.workers.target_workers import hire, target_pool
from budc.progress import planned_passes
from budc.schema.artifact import Artifact, read
from budc.schema.policy import Policy, PolicyDocument, Quality, SamplerBinding, Search
from budc.schema.report_names import FROZEN, NATIVE, OBJECTIVES
from budc.schema.timestamps import issue_time


@dataclass(frozen=True)
class Transferred:
    """The policy on the target, what finding it cost, the choices that were made, and the policies of the same NFE to
    report beside it.
    """

    policy: Policy
    candidates: int = 0
    forwards: ForwardCount = field(default_factory=ForwardCount)
    notes: tuple[str, ...] = ()
    beside: Mapping[str, SampledPolicy] = field(default_factory=dict)


def transfer(plan: TransferPlan) -> Artifact:
    """Write the target's artifact and return it.

    Raises:
        CalibrationMismatch: the scheduler's settings or the steps at which experts take over differ.
        BudcError: see `load_target`, `Finder` and `Evaluator`.
    """
    with (
        planned_passes(transfer_work(plan)),
        target_pool(plan.cluster, plan.target, plan.path) as pool,
    ):
        return _transfer(plan, pool)


def _transfer(plan: TransferPlan, pool: Pool | None) -> Artifact:
    loaded = load_target(plan.target)
    sampler = _sampler(plan, loaded)
    with loaded.journal(plan.path, _settings(plan), plan.batch) as journal:
        task = loaded.task(sampler, plan.source.document.budget.nfe, plan.seed)
        task = replace(task, effort=plan.effort, proposed=plan.batch)
        workers = hire(pool, loaded, task, journal)
        transferred = _transferred(plan, task, sampler, journal, workers.search)
        full = loaded.model.sampler(plan.target.profile.steps)
        evaluator = loaded.evaluator(full, journal, workers=workers.report)
        generated = evaluator.generate(
            SampledPolicy(transferred.policy, sampler), plan.source.document.budget.nfe, transferred.beside
        )
        (quality,) = evaluator.report([generated], OBJECTIVES["log-mean"], loaded.calibration_set())
        document = _document(plan, loaded, sampler, transferred, quality)
        write_artifact(document, plan.signer, plan.path)
        journal.discard()
    return read(plan.path)


def _sampler(plan: TransferPlan, loaded: LoadedTarget) -> SamplerBinding:
    """Return the sampler that the policy runs on at the target; refuse one that differs too much."""
    document, profile = plan.source.document, plan.target.profile
    own = loaded.model.sampler(document.sampler.steps)
    check_scheduler(document, profile, own, plan.differing)
    # A schedule aligned to the policy goes with it; where the scheduler is another one, the target's own stands.
    same = document.sampler.config_digest == own.config_digest
    sampler = loaded.model.with_experts(document.sampler) if same else own
    check_first_steps(document, profile, sampler)
    return sampler


def _settings(plan: TransferPlan) -> dict[str, object]:
    """Return what measurements depend on beside the target."""
    return {
        "source": plan.source.policy_id,
        "effort": plan.effort,
        "transfer": [plan.frozen, plan.nearby, plan.native, plan.differing],
        **({"batch": plan.batch} if plan.batch > 1 else {}),
        "seed": plan.seed,
    }


def _transferred(
    plan: TransferPlan,
    task: Task,
    sampler: SamplerBinding,
    journal: Journal,
    workers: SearchWorkers | None,
) -> Transferred:
    policy, beside = plan.source.document.policy, dict[str, SampledPolicy]()
    if plan.frozen and not plan.native:
        return Transferred(policy)
    finder = Finder(Calibration(task, journal, workers))
    if plan.frozen:
        transferred = Transferred(policy)
    else:
        beside[FROZEN] = SampledPolicy(policy, sampler)
        transferred = _nearby(policy, finder) if plan.nearby else _kept(policy, finder)
    if plan.native:
        native = finder.find(finder.task)
        beside[NATIVE] = SampledPolicy(native.policy, sampler)
        # The reference run is shared, so it is counted once.
        shared = transferred.forwards.reference > 0
        forwards = replace(native.forwards, reference=0) if shared else native.forwards
        transferred = replace(transferred, forwards=transferred.forwards + forwards)
    return replace(transferred, beside=beside)


def _nearby(policy: Policy, finder: Finder) -> Transferred:
    """Search masks near the policy's own, which all branches share."""
    steps = policy.branches[0].step_mask().compute_steps
    result = finder.find(replace(finder.task, search=NEARBY_SEARCH, published_masks=(steps,)))
    return Transferred(result.policy, result.candidates, result.forwards, result.notes)


def _kept(policy: Policy, finder: Finder) -> Transferred:
    """Keep the policy's masks."""
    result = finder.transferred(policy)
    return Transferred(result.policy, result.candidates, result.forwards, result.notes)


def _document(
    plan: TransferPlan,
    loaded: LoadedTarget,
    sampler: SamplerBinding,
    transferred: Transferred,
    quality: Quality,
) -> PolicyDocument:
    source = plan.source.document
    return msgspec.structs.replace(
        source,
        name=plan.name,
        revision=plan.revision,
        issued_at=issue_time(),
        model=loaded.binding,
        sampler=plan.target.bound(sampler),
        shape=output_shape(plan.target.profile),
        images=conditioning_images(plan.target.profile),
        policy=transferred.policy,
        quality=quality,
        search=Search(
            algorithm="transfer",
            seed=plan.seed,
            candidates=transferred.candidates,
            forwards=transferred.forwards.total,
            settings={
                "effort": plan.effort,
                "frozen": plan.frozen,
                "nearby": plan.nearby,
                "from": source.name,
                "differing": plan.differing,
                **plan.target.prompt_files,
                **choices(transferred.notes),
            },
            versions=versions(),
        ),
        derived_from=plan.source.policy_id,
    )
