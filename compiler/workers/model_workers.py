"""Workers that have a model, and the prompts of each setting that is measured: of an evaluation, or of a replay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from budc.compiler.cluster import Cluster
from budc.compiler.denoisers.conditioning import Conditioning
from budc.compiler.models.adapters import with_adapters
from budc.compiler.models.binding import model_binding
from budc.compiler.models.denoiser import model_denoiser
from budc.compiler.models.model import LoadedModel, load_model
from budc.compiler.rollouts.schedule import NoiseSchedule
from budc.compiler.selection.task import Task
from budc.compiler.storage.journal import Journal
from budc.compiler.workers.pool import Pool
from budc.compiler.workers.report_tasks import PoolReport, ReportSetting
from budc.compiler.workers.search_tasks import SEARCH, PoolSearch, WorkerSearch
from budc.compiler.workers.worker_pool import worker_pool
from budc.policies.adapter_files import AdapterFile
from budc.policies.profile import ModelProfile
from budc.runtimes.sampling.devices import find_device
from budc.schema.digest_cache import DigestCache
from budc.schema.errors import WeightsMismatch
from budc.schema.policy import ModelBinding

MODEL = "model"
"""What a worker's state is called."""
Deploy = Callable[[LoadedModel], LoadedModel]
"""Returns the model as a setting deploys it."""


@dataclass(frozen=True)
class LoadModel:
    """Load a model, and compare its files with those that the first process found; `binding` is without adapters."""

    profile: ModelProfile
    folder: Path
    device: str
    binding: ModelBinding
    adapters: tuple[AdapterFile, ...] = ()
    offload: Literal["model", "group"] = "model"

    def __call__(self, state: dict[str, Any]) -> None:
        """Put the model into the state. Raises WeightsMismatch, see also `load_model`."""
        if model_binding(self.profile, self.folder, DigestCache.of_user()) != self.binding:
            raise WeightsMismatch(
                f"{self.folder}: the model's files are not those of the machine that measures",
                remedy="copy the same revision of the model to every node, under the same path",
            )
        model = load_model(self.profile, self.folder, find_device(self.device), self.offload)
        if self.adapters:
            with_adapters(model, self.binding, self.adapters)
        state[MODEL] = model


@dataclass(frozen=True)
class PrepareSetting:
    """Take a setting's encoded prompts, and how it deploys the model."""

    name: str
    conditions: Conditioning
    first_blocks: int = 0
    deploy: Deploy | None = None

    def __call__(self, state: dict[str, Any]) -> None:
        """Put the setting into the state."""
        model = state[MODEL] if self.deploy is None else self.deploy(state[MODEL])
        state[self.name] = ReportSetting(model, self.conditions, self.first_blocks)


@dataclass(frozen=True)
class PrepareReferenceRun:
    """Take encoded prompts whose reference run is to be made, every step of `steps`, under a label."""

    conditions: Conditioning
    steps: int
    folder: Path
    jobs: int
    label: str

    def __call__(self, state: dict[str, Any]) -> None:
        """Put a task into the state that takes all prompts."""
        model: LoadedModel = state[MODEL]
        sampler = model.sampler(self.steps)
        task = Task(
            denoiser=model_denoiser(model),
            schedule=NoiseSchedule.of(model.scheduler, sampler.sigmas, sampler.timesteps),
            conditions=self.conditions,
            nfe=1,
            annealing=model.profile.search,
            search="uniform",
        )
        state[SEARCH] = WorkerSearch(task, self.folder, self.jobs, self.label)


@contextmanager
def model_pool(cluster: Cluster | None, device: torch.device, folder: Path) -> Iterator[Pool | None]:
    """Start a cluster's workers, which write below `folder`; None where no cluster is asked for.

    Raises:
        BudcError: see `worker_pool`.
    """
    if cluster is None:
        yield None
        return
    with worker_pool(cluster, device, folder) as pool:
        yield pool


class ModelWorkers:
    """The workers of one model. They load it here."""

    def __init__(
        self,
        pool: Pool,
        model: LoadedModel,
        adapters: tuple[AdapterFile, ...] = (),
        offload: Literal["model", "group"] = "model",
    ) -> None:
        self.pool = pool
        self._settings = 0
        binding = model_binding(model.profile, model.folder, DigestCache.of_user())
        folder = model.folder.absolute()
        pool.set_up(LoadModel(model.profile, folder, pool.device.type, binding, adapters, offload))

    def report(
        self,
        journal: Journal,
        conditions: Conditioning,
        first_blocks: int = 0,
        deploy: Deploy | None = None,
    ) -> PoolReport:
        """Return the workers of one setting's report."""
        self._settings += 1
        name = f"setting {self._settings}"
        self.pool.set_up(PrepareSetting(name, conditions, first_blocks, deploy))
        return PoolReport(self.pool, journal, name)

    def reference_run(self, journal: Journal, conditions: Conditioning, steps: int, label: str) -> PoolSearch:
        """Return the workers of a reference run."""
        folder = journal.folder.absolute()
        self.pool.set_up(PrepareReferenceRun(conditions, steps, folder, journal.jobs, label))
        return PoolSearch(self.pool, journal)
