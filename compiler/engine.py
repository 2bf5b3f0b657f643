"""`--for`: a policy for another engine, which reuses by its own rule and computes some steps in every run.

Whatever the engine leaves no room for is refused before a model is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from budc.compiler.search import GIVEN
from budc.compiler.selection.stages import Trained
from budc.option_names import option
from budc.policies.profile import ModelProfile
from budc.runtimes.targets.deployment_target import REUSES, DeploymentTarget, check_fits
from budc.runtimes.targets.registry import target_named
from budc.schema.errors import BudgetImpossible, UnsupportedModel, UsageError
from budc.schema.mask import StepMask

FOR = "for"
"""The option that names the engine."""


@dataclass(frozen=True)
class Wishes:
    """What a request asks for that an engine may leave no room for."""

    search: str
    mask: StepMask | None = None
    separate: bool = False
    fit: bool = False
    align: bool = False
    train: Trained = "both"
    sizes: int = 1
    """How many sizes of output the policy is for."""


def engine_named(name: str, profile: ModelProfile) -> DeploymentTarget:
    """Return the engine that a policy is searched for.

    Raises:
        UsageError: there is none of that name, or nothing can be searched for it.
        UnsupportedModel: it does not run the profile's model.
    """
    engine = target_named(name, FOR)
    if engine.rule == "none":
        raise UsageError(
            f"{option(FOR, name)}: no policy can be searched for {engine.engine}, which follows no mask",
            remedy=f"export any policy for it: budc export config POLICY --to {name}",
        )
    if len(profile.denoisers) > 1:
        raise UnsupportedModel(f"{profile.name} has {len(profile.denoisers)} denoisers, {name} is for one")
    check_fits(engine, profile.name, next(iter(profile.denoisers.values())), profile.dtype)
    return engine


def check_engine(engine: DeploymentTarget, steps: int, budgets: Iterable[int], wishes: Wishes) -> None:
    """Refuse what an engine leaves no room for.

    Raises:
        UsageError: an option that it has no use for, or a mask that it does not follow.
        BudgetImpossible: it computes more steps in every run.
    """
    _check_trained(engine, wishes)
    _check_searched(engine, wishes)
    always = engine.always_computed(steps)
    for nfe in budgets:
        if nfe < len(always):
            raise BudgetImpossible(
                f"{option('budget')}: {nfe} evaluations, but {engine.engine} computes the steps "
                f"{', '.join(map(str, always))} in every run",
                remedy=f"at least {len(always)}",
            )
    mask = wishes.mask
    if mask is not None and not all(mask[step] for step in always):
        raise UsageError(
            f"{option('mask')}: {engine.engine} computes the steps {', '.join(map(str, always))} in every run",
            remedy="compute them too",
        )
    if mask is not None and engine.masks is not None and mask not in engine.masks(steps, mask.nfe):
        raise UsageError(f"{option('mask')}: {mask.strip()} is no mask that {engine.engine} can follow")


def _check_trained(engine: DeploymentTarget, wishes: Wishes) -> None:
    """Refuse coefficients and sigmas of a policy's own. Raises UsageError."""
    name = "fit" if wishes.fit else "align"
    if wishes.fit or (wishes.align and wishes.train != "sigmas"):
        raise UsageError(
            f"{option(name)}: {engine.engine} {REUSES[engine.rule]}, a policy has no coefficients there",
            remedy=f"leave out {option(name)}",
        )
    if wishes.align:
        raise UsageError(
            f"{option('align')}: {engine.engine} makes its own sigmas, a policy cannot bring trained ones",
            remedy=f"leave out {option('align')}",
        )


def _check_searched(engine: DeploymentTarget, wishes: Wishes) -> None:
    """Refuse sizes, masks of branches and a search that are not the engine's. Raises UsageError."""
    if wishes.sizes > 1 and engine.one_size:
        raise UsageError(
            f"{option('shape')}: a file of {engine.engine} is for one size of output",
            remedy="compile a policy for each size",
        )
    if wishes.separate and not engine.branch_masks:
        raise UsageError(
            f"{option('branches', 'separate')}: {engine.engine} has one mask for all branches",
            remedy="leave it out",
        )
    if wishes.search == "paper" and (engine.payload, engine.rule) != ("trunk-residual", "plain"):
        raise UsageError(
            f"{option('search', 'paper')}: it repeats the trunk residual, {engine.engine} does not",
            remedy=f"leave out {option('search')}",
        )


def search_for(engine: DeploymentTarget | None, search: str) -> str:
    """Return the search for an engine, if any: of few masks, each is rolled out."""
    few = engine is not None and engine.masks is not None
    return "known" if few and search != GIVEN else search
