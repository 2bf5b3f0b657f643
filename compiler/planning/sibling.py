"""Sibling: what a transfer from a smaller model of the same family would save."""

from __future__ import annotations

from typing import NamedTuple

from budc.compiler.planning.estimate import CompileEstimate, estimate_compile
from budc.compiler.planning.forwards import transfer_forwards
from budc.policies.costs import costs
from budc.policies.profile import ModelProfile, load_profile

SAME = ("family", "pipeline_class", "scheduler", "steps", "guidance", "branches")
"""What a policy's model and its target must share for a transfer without further flags."""


class Transfer(NamedTuple):
    """A compile for the model `source` and a transfer from there, both in forwards of the target."""

    source: str
    transfer: int
    compile: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.transfer + self.compile


def transfer_from_sibling(estimate: CompileEstimate) -> Transfer | None:
    """Return what it takes to compile for the smallest sibling and to transfer; None where that saves nothing."""
    settings = estimate.settings
    smaller = [
        (cost, name)
        for name, cost in costs().items()
        if cost.flops < estimate.cost.flops and _alike(load_profile(name), settings.profile)
    ]
    if not smaller:
        return None
    cost, name = min(smaller, key=lambda found: found[0].flops)
    own = {**vars(settings), "profile": load_profile(name), "proxy": None}
    elsewhere = estimate_compile(type(settings)(**own), cost)
    share = cost.flops / estimate.cost.flops
    transfer = Transfer(name, transfer_forwards(settings), round(share * elsewhere.forwards))
    return transfer if transfer.total < estimate.forwards else None


def _alike(sibling: ModelProfile, target: ModelProfile) -> bool:
    return all(getattr(sibling, field) == getattr(target, field) for field in SAME)
