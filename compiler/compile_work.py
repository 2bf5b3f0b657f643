"""The work of a compile, pass by pass, from which the time that is left of all of them is told.

Where a quality or a time decides on the budget, it has the budgets that are likely to be tried
(`budc.compiler.budget_bracket`), and is made anew after each of them.
"""

from __future__ import annotations

from dataclasses import replace

from budc.compiler.budget_bracket import QUALITY_SLOPE, TIME_SLOPE, Bracket
from budc.compiler.compile_plan import CompilePlan
from budc.compiler.expected_passes import OF_FRAMES, ExpectedPasses, Passes, added
from budc.compiler.selection.stages import stages_of
from budc.compiler.settled_budget import QUALITY_PASS, REPEATS, TIME_PASS
from budc.compiler.shapes import OutputSize
from budc.policies.profile import ModelProfile
from budc.progress.remaining_work import RemainingWork

JUDGES_FRAMES = "judges' frames"
"""The label of a pass that decodes for the prompts that judge."""


def compile_work(plan: CompilePlan) -> RemainingWork:
    """Return the passes of a compile with the forwards of each."""
    expected = _expected(plan)
    if plan.quality is not None:
        passes = added(expected.reference(), work_from(plan, first_bracket(plan)))
    elif plan.within is not None:
        passes = work_from(plan, first_bracket(plan))
    else:
        passes = _passes(plan)
    # A quality may try every budget.
    searches = plan.steps if plan.quality is not None else len(plan.policies)
    return RemainingWork(passes, expected.worths(searches), {f"search ({plan.search})": expected.spread})


def first_bracket(plan: CompilePlan) -> Bracket:
    """Return the bracket of a budget that a quality, or a time, decides on, before anything is tried.

    For a time it is of the smallest budget that takes longer.
    """
    always = () if plan.engine is None else plan.engine.always_computed(plan.steps)
    fewest = max(len(plan.target.profile.denoisers), len(always))
    if plan.within is not None:
        return Bracket(fewest, plan.steps + 1, TIME_SLOPE)
    return Bracket(fewest, plan.steps, QUALITY_SLOPE)


def work_from(plan: CompilePlan, bracket: Bracket) -> Passes:
    """Return the passes that are still to begin, by what is known of the budget that is asked for.

    A quality's budgets are tried after the reference run, so that is not among them.
    """
    *tried, answer = bracket.expected()
    if plan.within is not None:
        nfe = max(bracket.fewest, answer - 1)
        passes = _passes(replace(plan, policies=(replace(plan.policies[0], nfe=nfe),)))
        loops = (REPEATS + 1) * len(plan.target.profile.branches)
        return added({TIME_PASS: [loops * nfe for nfe in tried]}, passes)
    expected = _expected(plan)
    judges = expected.stages.judge
    passes = {}
    for index, nfe in enumerate(tried):
        judged: Passes = {QUALITY_PASS: [nfe * judges * expected.branches]}
        if expected.frames:
            judged[JUDGES_FRAMES] = [2 * OF_FRAMES * judges]
        passes = added(passes, expected.found(nfe, [*bracket.tried, *tried[:index]]), judged)
    return added(passes, expected.report([answer]), _further(plan, answer))


def _passes(plan: CompilePlan) -> Passes:
    """Return the passes of a compile of known budgets."""
    expected, budgets = _expected(plan), [planned.nfe for planned in plan.policies]
    searches = [expected.found(nfe, budgets[:index]) for index, nfe in enumerate(budgets)]
    further = [_further(plan, nfe) for nfe in budgets]
    return added(expected.reference(), *searches, expected.report(budgets), *further)


def _expected(plan: CompilePlan) -> ExpectedPasses:
    samples = plan.target.samples
    arbitrates = plan.align or plan.auto_steps or plan.quality is not None
    return ExpectedPasses(
        profile=plan.target.profile,
        steps=plan.steps,
        search=plan.search,
        effort=plan.effort,
        stages=stages_of(
            plan.search, plan.effort, plan.largest, len(samples.calibration), arbitrates=arbitrates
        ),
        held_out=len(samples.held_out),
        frames=plan.target.frames,
        align=plan.align,
        engine=plan.engine,
        mask=plan.mask,
        proxy=None if plan.proxy is None else _share(plan, plan.proxy),
    )


def _share(plan: CompilePlan, size: OutputSize) -> float:
    """Return about which share of a forward one at another size is: that of the latents."""
    return _latents(size.of(plan.target.profile)) / _latents(plan.target.profile)


def _further(plan: CompilePlan, nfe: int) -> Passes:
    """Return the passes at the further sizes, in forwards of the first: two rollouts that are compared, a report."""
    prompts = len(plan.target.samples.calibration)
    stages = stages_of(plan.search, plan.effort, nfe, prompts, arbitrates=False)
    expected = replace(_expected(plan), stages=stages, proxy=None)
    fits = added(expected.fit(nfe), expected.fit(nfe))
    passes: Passes = {}
    for size in plan.further_sizes:
        scale = _share(plan, size)
        at_size = added(expected.reference(), fits, expected.report([nfe]))
        passes = added(
            passes, {label: [scale * count for count in counts] for label, counts in at_size.items()}
        )
    return passes


def _latents(profile: ModelProfile) -> int:
    """Return how many latents an output has, but for a factor that all sizes share."""
    return profile.height * profile.width * ((profile.frames - 1) // 4 + 1)
