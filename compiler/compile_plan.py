"""The plan of a compile: every question of the request answered, nothing loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from budc.compiler.cluster import Cluster
from budc.compiler.selection.stages import Trained
from budc.compiler.shapes import OutputSize
from budc.compiler.storage.shard import Shard
from budc.compiler.target import Target
from budc.option_names import option
from budc.runtimes.targets.deployment_target import DeploymentTarget
from budc.schema.artifact import SUFFIX
from budc.schema.bounds import Bound
from budc.schema.errors import OutputError
from budc.schema.files import check_place
from budc.schema.mask import StepMask
from budc.schema.signers import Signer


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
    lpips: Path | None = None
    """Folder of LPIPS's weights, where that is what the paper's second stage minimises."""
    separate: bool
    """Whether guidance branches may have masks of their own."""
    quality: Bound | None = None
    """What the smallest budget is asked for that keeps it; the one policy then has all steps, until it is found."""
    within: float | None = None
    """Seconds of a denoising loop that the largest budget is asked for; likewise."""
    engine: DeploymentTarget | None = None
    """The engine that the policy is for; None for budc's own runtimes."""
    mask: StepMask | None = None
    """The mask that the user gives, in place of a search for one."""
    further_sizes: tuple[OutputSize, ...] = ()
    """Sizes that the policy is fitted to and measured on, beside the one that it is searched on."""
    proxy: OutputSize | None = None
    """The smaller size at which masks are searched; None to search at the real one."""
    shard: Shard | None = None
    """Which part of the reference runs is to be made, in place of the artifact."""
    merge: Path | None = None
    """Folder of such parts that all jobs have made."""
    cluster: Cluster | None = None
    """The Ray cluster whose workers compute; None for this process alone."""
    batch: int = 1
    """How many candidates the search proposes at a time, and pieces that a prompt set is cut into at least."""
    seed: int
    revision: int
    signer: Signer | None
    trace: Path | None = None
    """Where to write what the search scored."""

    @property
    def largest(self) -> int:
        """The largest budget: it decides how many prompts all of them are given."""
        return max(planned.nfe for planned in self.policies)


def _existing(folder: Path) -> Path:
    """Return the nearest folder above one that is to be made."""
    return next((parent for parent in folder.absolute().parents if parent.exists()), Path("/"))


def plan_policies(
    budgets: Mapping[int, str], names: Mapping[int, str], out: Path | None, *, sweep: bool
) -> tuple[PlannedPolicy, ...]:
    """Return a policy for every NFE of `budgets`; `out` is a file, or for a sweep a folder, which may not be there yet.

    Raises:
        OutputError: an artifact could not be written.
    """
    folder = out if sweep and out is not None else Path()
    if (folder.exists() and not folder.is_dir()) or folder.suffix == ".json":
        raise OutputError(
            f"{option('out')}: {folder} is not a folder, and a sweep writes several files",
            remedy="name a folder",
        )
    paths = {nfe: folder / f"{name}{SUFFIX}" for nfe, name in names.items()}
    if not sweep and out is not None:
        paths = dict.fromkeys(names, out)
    for path in paths.values():
        check_place(path if folder.is_dir() else _existing(folder) / path.name)
    return tuple(PlannedPolicy(nfe, budget, names[nfe], paths[nfe]) for nfe, budget in budgets.items())
