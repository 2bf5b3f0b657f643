"""The plan of a compile: every question of the request answered, nothing loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from budc.compiler.selection.stages import Trained
from budc.compiler.shapes import OutputSize
from budc.compiler.target import Target
from budc.schema.artifact import SUFFIX
from budc.schema.errors import OutputError
from budc.schema.files import check_place
from budc.schema.keys import Signer
from budc.schema.mask import StepMask


@dataclass(frozen=True)
class PlannedPolicy:
    """One policy of a compile: its NFE, the budget as the user wrote it, the artifact's name and where it goes."""

    nfe: int
    budget: str
    name: str
    path: Path


@dataclass(frozen=True, kw_only=True)
class CompilePlan:
    """What a compile does. `auto_steps` lets as many plain steps as the budget be the policy where they win."""

    target: Target
    policies: tuple[PlannedPolicy, ...]
    steps: int
    auto_steps: bool
    search: str
    effort: str
    align: bool
    train: Trained
    """What an alignment trains."""
    separate: bool
    """Whether guidance branches may have masks of their own."""
    mask: StepMask | None = None
    """The mask that the user gives, in place of a search for one."""
    further_sizes: tuple[OutputSize, ...] = ()
    """Sizes that the policy is fitted to and measured on, beside the one that it is searched on."""
    seed: int
    revision: int
    signer: Signer | None


def plan_policies(
    budgets: Mapping[int, str], names: Mapping[int, str], out: Path | None, *, sweep: bool
) -> tuple[PlannedPolicy, ...]:
    """Return a policy for every NFE of `budgets`; `out` is a file, or for a sweep an existing folder.

    Raises:
        OutputError: an artifact could not be written.
    """
    folder = out if sweep and out is not None else Path()
    if not folder.is_dir():
        raise OutputError(f"--out: {folder} is not an existing folder, and a sweep writes several files")
    paths = {nfe: folder / f"{name}{SUFFIX}" for nfe, name in names.items()}
    if not sweep and out is not None:
        paths = dict.fromkeys(names, out)
    for path in paths.values():
        check_place(path)
    return tuple(PlannedPolicy(nfe, budget, names[nfe], paths[nfe]) for nfe, budget in budgets.items())
