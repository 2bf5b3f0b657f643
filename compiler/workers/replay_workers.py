"""A replay on the workers of a cluster."""

from __future__ import annotations

import tempfile
from pathlib import Path

from budc.compiler.cluster import Cluster
from budc.compiler.denoisers.conditioning import Conditioning
from budc.compiler.evaluation.replay import Replayed, ReplayRequest, replay
from budc.compiler.models.model import LoadedModel
from budc.compiler.rollouts.workers import ReportWorkers
from budc.compiler.storage.journal import Journal
from budc.compiler.workers.model_workers import ModelWorkers, model_pool
from budc.policies.listed_adapters import listed_adapters
from budc.runtimes.sampling.devices import find_device
from budc.runtimes.targets.registry import first_blocks_of


def replay_on(cluster: Cluster | None, request: ReplayRequest) -> list[Replayed]:
    """Measure a policy's held-out figures again, on the workers of a cluster where one is given.

    Raises:
        BudcError: see `replay` and `worker_pool`; the folder that all nodes share is the one of temporary files.
    """
    with model_pool(cluster, find_device(request.device), Path(tempfile.gettempdir())) as pool:
        if pool is None:
            return replay(request)

        def hire(model: LoadedModel, conditions: Conditioning, journal: Journal) -> ReportWorkers:
            adapters = listed_adapters(request.document, request.lora)
            workers = ModelWorkers(pool, model, adapters)
            return workers.report(journal, conditions, first_blocks_of(request.document))

        return replay(request, hire)
