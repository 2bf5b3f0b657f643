"""What an engine can run of a policy, and how a policy is written for it.

An engine skips steps by a mask of its own form and reuses by a rule of its own. One small module describes each engine;
all are in `budc.runtimes.targets.registry`.
"""

from collections.abc import Callable, Mapping
from typing import Literal

from msgspec import Struct

from budc.runtimes.targets.deployment import Configuration, Deployment
from budc.schema.errors import UnsupportedModel
from budc.schema.mask import StepMask
from budc.schema.policy import Payload, PolicyDocument

Rule = Literal["plain", "linear", "none"]
"""How an engine reuses (`budc.runtimes.sampling.rules`); "none": it computes every step."""

REUSES: Mapping[Rule, str] = {
    "plain": "repeats the newest cached tensor unchanged",
    "linear": "extrapolates the two newest cached tensors",
    "none": "computes every step",
}
"""Rule -> what an engine does at a step that it does not compute, as a predicate."""


class DeploymentTarget(Struct, frozen=True, kw_only=True):
    """What one engine can run, and how a policy is written for it."""

    name: str
    engine: str
    """What people call it."""
    version: str
    """The release, or the state, whose behaviour this describes."""
    payload: Payload
    rule: Rule
    leading: int = 1
    """So many steps at the beginning are computed in every run."""
    trailing: int = 0
    """So many at the end."""
    branch_masks: bool = False
    """Whether guidance branches may have masks of their own."""
    sigmas: bool = False
    """Whether the file carries the policy's sigmas; otherwise the engine makes its own."""
    one_size: bool = False
    """Whether its file says which size of output it is for."""
    denoisers: tuple[str, ...] = ()
    """Classes of denoisers that it runs this way; any if empty."""
    dtypes: tuple[str, ...] = ()
    """Precisions that it runs this way; any if empty."""
    first_blocks: int = 0
    """So many blocks run at every step; what the others add is what it reuses."""
    unchecked: tuple[str, ...]
    """What it does not check when it loads the file or runs."""
    settings: Mapping[str, str] = {}
    """What the user may say of the engine: name -> what it is."""
    masks: Callable[[int, int], tuple[StepMask, ...]] | None = None
    """(steps, NFE) -> the masks that it can follow, some for every budget that has room for the steps that are always
    computed; unset where it can follow any."""
    write: Callable[[Deployment], Configuration]

    def always_computed(self, steps: int) -> tuple[int, ...]:
        """Return the steps that every run computes."""
        if self.rule == "none":
            return tuple(range(steps))
        return tuple(sorted({*range(min(self.leading, steps)), *range(max(0, steps - self.trailing), steps)}))


def check_deployable(target: DeploymentTarget, document: PolicyDocument) -> None:
    """Refuse a policy whose model the engine does not run this way.

    Raises:
        UnsupportedModel: a network without a pipeline, several denoisers, another class or precision.
    """
    shape = document.pipeline().shape
    if document.sampler.experts:
        raise UnsupportedModel(
            f"{document.name} is for {len(document.model.denoisers)} denoisers, {target.name} is written for one"
        )
    check_fits(target, document.name, document.model.denoisers[0].class_name, shape.dtype)


def check_fits(target: DeploymentTarget, name: str, denoiser: str, dtype: str) -> None:
    """Refuse a class of denoisers or a precision that the engine does not run this way. Raises UnsupportedModel."""
    if target.denoisers and denoiser not in target.denoisers:
        raise UnsupportedModel(
            f"{name} is for a {denoiser}, {target.name} runs {', '.join(target.denoisers)}",
            remedy="choose another target; docs/targets.md lists them",
        )
    if target.dtypes and dtype not in target.dtypes:
        raise UnsupportedModel(
            f"{name} is for {dtype}, {target.name} runs {', '.join(target.dtypes)}",
            remedy=f"compile it with --dtype {target.dtypes[0]}",
        )
