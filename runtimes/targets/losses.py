"""What becomes of a policy that an engine runs by its own mask and its own rule of reuse.

`deployed` says how the engine runs it, and each thing that is then different, in one line. A policy that
`budc compile --for` made for the engine loses nothing.
"""

from collections.abc import Mapping
from itertools import zip_longest

from budc.runtimes.sampling.rules import fixed_rows
from budc.runtimes.targets.deployment import Deployment
from budc.runtimes.targets.deployment_target import REUSES, DeploymentTarget, check_deployable
from budc.runtimes.targets.registry import first_blocks_of
from budc.schema.mask import StepMask
from budc.schema.policy import Payload, Policy, PolicyDocument

_PAYLOADS: Mapping[Payload, str] = {
    "trunk-residual": "the trunk residual",
    "velocity": "the velocity",
    "trunk-output": "the output of the trunk",
}


def deployed(
    target: DeploymentTarget,
    document: PolicyDocument,
    policy_id: str,
    settings: Mapping[str, str],
    suffix: str = "",
) -> Deployment:
    """Return how an engine runs a policy, and what is lost.

    Args:
        target: the engine.
        document: the policy.
        policy_id: its id.
        settings: what the user says of the engine, of `target.settings`.
        suffix: of the file to write.

    Raises:
        UnsupportedModel: see `check_deployable`.
    """
    check_deployable(target, document)
    branches = {name: own for own in document.policy.branches for name in own.names}
    given = {name: own.step_mask() for name, own in branches.items()}
    masks, losses = _masks(target, given)
    rows = {
        name: [()] * mask.steps if target.rule == "none" else fixed_rows(target.rule, mask)
        for name, mask in masks.items()
    }
    policy = Policy.of(target.payload, rows)
    if any(mask.nfe < mask.steps for mask in masks.values()):
        losses += _reuse_losses(target, document.policy, policy)
        if target.first_blocks != first_blocks_of(document):
            losses.append(
                f"blocks: {target.engine} reuses what {_blocks(target.first_blocks)} added, "
                f"the policy what {_blocks(first_blocks_of(document))} did"
            )
    if document.search.settings.get("aligned") is True and not target.sigmas:
        losses.append(
            f"sigmas: the policy's were trained, {target.engine} makes its own unless you pass them to it"
        )
    if document.further_shapes and target.one_size:
        losses.append(
            f"sizes: the policy is for {1 + len(document.further_shapes)}, a file of {target.engine} for one"
        )
    return Deployment(
        document=document,
        policy_id=policy_id,
        policy=policy,
        losses=tuple(losses),
        settings=settings,
        suffix=suffix,
    )


def _masks(target: DeploymentTarget, given: Mapping[str, StepMask]) -> tuple[dict[str, StepMask], list[str]]:
    """Return the masks that the engine follows, those given and what it computes beside them, and what that costs."""
    losses, masks = [], dict(given)
    if len(set(given.values())) > 1 and not target.branch_masks:
        union = StepMask.of(any(step) for step in zip(*given.values(), strict=True))
        masks = dict.fromkeys(given, union)
        losses.append(
            f"masks: {' and '.join(given)} have masks of their own, {target.engine} has one for all: "
            f"{sum(union.nfe - mask.nfe for mask in given.values())} evaluations more"
        )
    always = target.always_computed(next(iter(given.values())).steps)
    followed = {
        name: StepMask.of(compute or step in always for step, compute in enumerate(mask))
        for name, mask in masks.items()
    }
    if more := max(followed[name].nfe - mask.nfe for name, mask in masks.items()):
        which = "every step" if target.rule == "none" else f"the steps {', '.join(map(str, always))}"
        losses.append(f"mask: {target.engine} computes {which} in every run: {more} evaluations more")
    return followed, losses


def _reuse_losses(target: DeploymentTarget, given: Policy, own: Policy) -> list[str]:
    losses = []
    if given.payload != own.payload:
        losses.append(
            f"payload: the policy reuses {_PAYLOADS[given.payload]}, {target.engine} {_PAYLOADS[own.payload]}"
        )
    # The coefficients of steps that both reuse: they are for the payload and the mask that they were fitted with.
    names = [name for branch in own.branches for name in branch.names]
    differing = {
        step
        for name in names
        for step, (wanted, has) in enumerate(
            zip(given.for_branch(name).predictor, own.for_branch(name).predictor, strict=True)
        )
        if wanted and has and any(abs(x - y) > 1e-6 for x, y in zip_longest(wanted, has, fillvalue=0.0))
    }
    if differing:
        losses.append(
            f"coefficients: the policy has its own at {len(differing)} steps, {target.engine} {REUSES[target.rule]}"
        )
    return losses


def _blocks(first: int) -> str:
    """Return which blocks are left out at a reused step."""
    if not first:
        return "all blocks"
    return f"the blocks after the first {first if first > 1 else 'one'}, which runs at every step,"
