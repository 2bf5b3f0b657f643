"""The work of a transfer, pass by pass, from which the time that is left of all of them is told."""

from __future__ import annotations

from dataclasses import replace

from budc.compiler.expected_passes import ExpectedPasses, Passes, added
from budc.compiler.selection.stages import stages_of
from budc.compiler.transfer_request import TransferPlan
from budc.progress.remaining_work import RemainingWork

NATIVE_SEARCH, NEARBY_SEARCH = "joint", "nearby"
"""The search on the target itself, and that of masks near the policy's own."""


def transfer_work(plan: TransferPlan) -> RemainingWork:
    """Return the passes of a transfer with the forwards of each."""
    document, samples, profile = plan.source.document, plan.target.samples, plan.target.profile
    nfe = document.budget.nfe
    expected = ExpectedPasses(
        profile=profile,
        steps=document.sampler.steps,
        search=NATIVE_SEARCH,
        effort=plan.effort,
        stages=stages_of(NATIVE_SEARCH, plan.effort, nfe, len(samples.calibration), arbitrates=False),
        held_out=len(samples.held_out),
        frames=plan.target.frames,
    )
    passes: Passes = {}
    if not plan.frozen or plan.native:
        passes = expected.reference()
    if plan.nearby:
        passes = added(passes, replace(expected, search=NEARBY_SEARCH).found(nfe))
    elif not plan.frozen:
        passes = added(
            passes, expected.fit(nfe), expected.fit(nfe), expected.refinement(nfe, expected.stages.total)
        )
    if plan.native:
        passes = added(passes, expected.found(nfe))
    policies = 3 + (not plan.frozen) + plan.native
    full = replace(expected, steps=profile.steps)
    return RemainingWork(added(passes, full.report([nfe], policies)))
