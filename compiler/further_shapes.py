"""Further shapes: a policy that was searched on one size of output, fitted to other sizes and measured on them.

Masks and payload stay. At each further size the calibration prompts are run in full once, and the policy twice: with
its own coefficients, and with coefficients fitted there. What loses less on these prompts is taken. Plain reuse stays
plain reuse. Where a pipeline shifts its schedule by size, the sigmas are those of the size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec

from budc.compiler.evaluation.report import SampledPolicy
from budc.compiler.loaded_target import LoadedTarget
from budc.compiler.selection.calibration import Calibration
from budc.compiler.selection.effort import DEFAULT_EFFORT
from budc.compiler.selection.stages import Stages
from budc.compiler.shapes import OutputSize
from budc.compiler.storage.journal import Journal
from budc.runtimes.targets.registry import first_blocks_of
from budc.schema.policy import BranchPolicy, FurtherShape, Policy, PolicyDocument, SamplerBinding
from budc.schema.report_names import FULL


@dataclass(frozen=True)
class SizedTarget:
    """The target at a further size, and the journal of what is measured there."""

    size: OutputSize
    loaded: LoadedTarget
    journal: Journal


def with_further_shapes(document: PolicyDocument, targets: Sequence[SizedTarget]) -> PolicyDocument:
    """Return the document of a policy with a report for each further size.

    Raises:
        BudcError: see `Calibration` and `Evaluator`.
    """
    if not targets:
        return document
    document = msgspec.structs.replace(document, policy=_one_entry_a_branch(document.policy))
    shapes, forwards = zip(*(_further_shape(document, target) for target in targets), strict=True)
    search = msgspec.structs.replace(document.search, forwards=document.search.forwards + sum(forwards))
    return msgspec.structs.replace(document, further_shapes=list(shapes), search=search)


def _further_shape(document: PolicyDocument, target: SizedTarget) -> tuple[FurtherShape, int]:
    """Return a size with its report, and the forwards that were spent on the fit."""
    loaded, journal = target.loaded, target.journal
    sampler, policy, forwards = _sampler(document, loaded), document.policy, 0
    # An engine's rule is the same at every size.
    if document.target is None and not _is_plain(policy):
        policy, forwards = _fitted(document, loaded, sampler, journal)
    full_steps = next(other.nfe for other in document.quality.baselines if other.name == FULL)
    evaluator = loaded.evaluator(loaded.model.sampler(full_steps), journal, first_blocks_of(document))
    generated = evaluator.generate(SampledPolicy(policy, sampler), document.budget.nfe)
    (quality,) = evaluator.report([generated], document.quality.objective, loaded.calibration_set())
    own = sampler.sigmas != document.sampler.sigmas or sampler.timesteps != document.sampler.timesteps
    shape = FurtherShape(
        **target.size._asdict(),
        quality=quality,
        sigmas=sampler.sigmas if own else None,
        timesteps=sampler.timesteps if own else None,
        branches=[] if policy == document.policy else policy.branches,
    )
    return shape, forwards


def _sampler(document: PolicyDocument, loaded: LoadedTarget) -> SamplerBinding:
    """Return the sampler on the schedule of a size; sigmas that were trained stay as they are."""
    if document.search.settings.get("aligned"):
        return document.sampler
    own = loaded.model.sampler(document.sampler.steps)
    return msgspec.structs.replace(document.sampler, sigmas=own.sigmas, timesteps=own.timesteps)


def _fitted(
    document: PolicyDocument, loaded: LoadedTarget, sampler: SamplerBinding, journal: Journal
) -> tuple[Policy, int]:
    """Return the policy with the better coefficients, its own or those fitted at this size, and the forwards spent."""
    policy, task = document.policy, loaded.task(sampler, document.budget.nfe, document.search.seed)
    effort = str(document.search.settings.get("effort", DEFAULT_EFFORT))
    calibration = Calibration(replace(task, effort=effort), journal, stages=_stages(document))
    fit = calibration.refitted(policy)
    names = [name for branch in policy.branches for name in branch.names]
    kept = policy if fit.policy is policy else _with_entries(fit.policy, names)
    return kept, calibration.reference_forwards + fit.forwards


def _stages(document: PolicyDocument) -> Stages | None:
    """Return the stages of the search; all policies of a sweep share them, and so the full runs of one journal."""
    settings = document.search.settings
    numbers = [value for name in Stages._fields if isinstance(value := settings.get(name), int)]
    return Stages(*numbers) if len(numbers) == len(Stages._fields) else None


def _one_entry_a_branch(policy: Policy) -> Policy:
    """Return the policy with an entry for each branch: at another size their coefficients may differ."""
    return _with_entries(policy, [name for branch in policy.branches for name in branch.names])


def _with_entries(policy: Policy, names: Sequence[str]) -> Policy:
    entries = [BranchPolicy.of([name], policy.for_branch(name).predictor) for name in names]
    return msgspec.structs.replace(policy, branches=entries)


def _is_plain(policy: Policy) -> bool:
    """Whether every reused step repeats the newest cached tensor unchanged."""
    return all(list(row) in ([], [1.0]) for branch in policy.branches for row in branch.predictor)
