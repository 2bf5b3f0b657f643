"""The compile: a plan becomes artifacts, resumed where an earlier call was killed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from budc.compiler.compile_budget import CompileBudget, settled_plan
from budc.compiler.compile_plan import CompilePlan
from budc.compiler.compile_task import compile_task, deployed_sampler, measured_settings, recorded_for
from budc.compiler.compile_work import compile_work
from budc.compiler.emit import make_document, write_artifact
from budc.compiler.evaluation.report import Evaluator, Generated, LoopTimes, SampledPolicy
from budc.compiler.further_shapes import SizedTarget, with_further_shapes
from budc.compiler.loaded_target import load_target
from budc.compiler.proxy_search import SizedSearch
from budc.compiler.search import algorithm
from budc.compiler.selection.calibration import Calibration
from budc.compiler.selection.finder import Finder
from budc.compiler.selection.settings import with_choices
from budc.compiler.selection.task import SearchResult
from budc.compiler.selection.trace import write_trace
from budc.compiler.settled_budget import Settled
from budc.compiler.shapes import OutputSize
from budc.compiler.shard_merge import find_shards
from budc.compiler.workers.pool import Pool
from budc.compiler.workers.target_workers import Recording, hire, target_pool
from budc.progress import planned_passes
from budc.progress.remaining_work import RemainingWork
from budc.schema.artifact import Artifact, read
from budc.schema.errors import UsageError
from budc.schema.files import make_folder
from budc.schema.policy import PolicyDocument, SamplerBinding
from budc.schema.report_names import OBJECTIVES


class Compiled(NamedTuple):
    """An artifact that was written, and what its loop took here, where that was measured.

    `tried` says in words what loops of the budgets took that were tried for `--within`. Times are not in the artifact,
    whose bytes the same compile repeats.
    """

    artifact: Artifact
    loop: LoopTimes | None
    tried: tuple[str, ...] = ()


def compile_artifacts(plan: CompilePlan) -> list[Artifact]:
    """Compile a policy for every budget and write the artifacts; return what was written.

    Raises:
        BudcError: see `compile_measured`.
    """
    return [compiled.artifact for compiled in compile_measured(plan)]


def compile_measured(plan: CompilePlan) -> list[Compiled]:
    """Compile a policy for every budget and write the artifacts; return what was written, with measured times.

    Raises:
        BudcError: see `load_target`, `Finder` and `Evaluator`. What can be refused is refused before the first
            rollout, and most of it before that by `CompileRequest.resolve`.
    """
    for planned in plan.policies:
        make_folder(planned.path.parent)
    work = compile_work(plan)
    with (
        planned_passes(work),
        target_pool(plan.cluster, plan.target, plan.policies[0].path) as pool,
    ):
        return _compiled(plan, pool, work)


def _compiled(plan: CompilePlan, pool: Pool | None, work: RemainingWork) -> list[Compiled]:
    loaded = load_target(plan.target)
    sampler = loaded.model.sampler(plan.steps)
    _check_mask(plan, sampler)
    objective = OBJECTIVES[algorithm(plan.search).objective]
    with ExitStack() as journals:
        settings, path = measured_settings(plan, sampler), plan.policies[0].path
        shards = None if plan.merge is None else find_shards(plan.merge, loaded.measured_with(settings))
        journal = journals.enter_context(
            loaded.journal(path, settings, plan.batch if shards is None else shards.jobs)
        )
        if shards is not None:
            shards.copy_into(journal)

        def at(size: OutputSize, settings: Mapping[str, object]) -> SizedTarget:
            sized = loaded.with_profile(size.of(plan.target.profile))
            return SizedTarget(size, sized, journals.enter_context(sized.journal(path, settings)))

        further = [at(size, settings) for size in plan.further_sizes]
        # A further shape may be of the proxy's size, but its journal is another one.
        proxy = None if plan.proxy is None else at(plan.proxy, {**settings, "only": "masks"})
        budget = CompileBudget(loaded, sampler, journal, work)
        settled = budget.within(plan)
        plan = settled_plan(plan, settled)
        task = compile_task(plan, loaded, sampler, plan.largest)
        masks = None if proxy is None else SizedSearch(plan, proxy)
        first_blocks = 0 if plan.engine is None else plan.engine.first_blocks
        workers = hire(pool, loaded, task, journal, Recording(*recorded_for(plan.engine), first_blocks))
        finder = Finder(Calibration(task, journal, workers.search))

        def find(nfe: int) -> SearchResult:
            task = compile_task(plan, loaded, sampler, nfe)
            return finder.find(task) if masks is None else masks.then(finder, task)

        settled = settled or budget.with_quality(plan, finder, find)
        plan = settled_plan(plan, settled)
        evaluator: Evaluator | None = None
        found: list[tuple[SearchResult, SamplerBinding]] = []
        generated: list[Generated] = []
        for planned in plan.policies:
            result = _result(planned.nfe, settled, find)
            evaluator = evaluator or loaded.evaluator(sampler, journal, first_blocks, workers.report)
            deployed = SampledPolicy(result.policy, deployed_sampler(loaded.model, sampler, result))
            found.append((result, deployed.sampler))
            generated.append(evaluator.generate(deployed, planned.nfe))
        assert evaluator is not None
        reports = evaluator.report(generated, objective, loaded.calibration_set())
        documents = (
            with_further_shapes(make_document(plan, planned, loaded.binding, own, result, quality), further)
            for planned, (result, own), quality in zip(plan.policies, found, reports, strict=True)
        )
        # Before the artifacts: where one is, its trace is.
        _write_trace(plan, objective, [result for result, _ in found])
        _write_artifacts(plan, documents)
        for done in (journal, *(target.journal for target in (*further, proxy) if target is not None)):
            done.discard()
    times = () if settled is None else settled.times
    return [
        Compiled(read(planned.path), evaluator.loop_times(planned.nfe), times) for planned in plan.policies
    ]


def _result(nfe: int, settled: Settled | None, find: Callable[[int], SearchResult]) -> SearchResult:
    """Return what was found for a budget, where it was tried to settle the budget then."""
    if settled is None:
        return find(nfe)
    return with_choices(settled.results.get(nfe) or find(nfe), settled.notes)


def _write_artifacts(plan: CompilePlan, documents: Iterable[PolicyDocument]) -> None:
    """Write each artifact before the next document is made, whose further sizes may take long."""
    for planned, document in zip(plan.policies, documents, strict=True):
        write_artifact(document, plan.signer, planned.path)


def _write_trace(plan: CompilePlan, objective: str, results: Sequence[SearchResult]) -> None:
    """Write what was scored at the real size, where that is asked for."""
    if plan.trace is not None:
        budgets = (planned.nfe for planned in plan.policies)
        pairs = zip(budgets, results, strict=True)
        write_trace(plan.trace, [(nfe, objective, result.trace) for nfe, result in pairs])


def _check_mask(plan: CompilePlan, sampler: SamplerBinding) -> None:
    """Refuse a mask of the user's that reuses where another denoiser takes over. Raises UsageError."""
    for expert in sampler.experts:
        if plan.mask is not None and expert.first_step < len(plan.mask) and not plan.mask[expert.first_step]:
            raise UsageError(
                f"--mask: step {expert.first_step} is reused, but there {expert.denoiser} takes over, which has "
                "nothing to reuse",
                remedy=f"compute step {expert.first_step} too",
            )
