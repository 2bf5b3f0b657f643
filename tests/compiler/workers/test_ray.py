"""A local Ray cluster of two workers: the policy of one process, and a worker that is killed."""

import os
from pathlib import Path

import pytest
import torch
import toy_search

from budc.compiler.cluster import Cluster
from budc.compiler.selection.finder import Finder
from budc.compiler.storage.journal import Journal
from budc.compiler.workers.ray_cluster import connected
from budc.compiler.workers.search_tasks import PoolSearch
from budc.compiler.workers.worker_pool import worker_pool
from budc.progress import reported
from budc.schema.errors import ClusterUnusable


@pytest.fixture
def one_thread():
    """A worker takes as many CPUs as this process has threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def found(task, folder, workers=None):
    """Return what a search finds, and the journal's records in the order in which they were written."""
    with Journal(folder, "toy", jobs=4) as journal:
        result = Finder(task, journal, None if workers is None else workers(journal)).find(task)
        return result, dict(journal.records)


def test_two_workers_find_what_one_process_finds_and_one_may_be_killed(one_thread, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{Path(toy_search.__file__).parent}:{os.environ.get('PYTHONPATH', '')}")
    task = toy_search.task()
    alone, records = found(task, tmp_path / "alone")
    with reported(None), worker_pool(Cluster("local", 2), torch.device("cpu"), tmp_path) as pool:
        pool.set_up(toy_search.Prepare(task, tmp_path / "together", jobs=4))
        together, written = found(task, tmp_path / "together", lambda journal: PoolSearch(pool, journal))
        assert together == alone
        assert written.keys() == records.keys()
        assert all(written[key] == records[key] for key in records if "full" not in key)
        killed = {worker.place for worker in pool.workers}
        tasks = [toy_search.KillFirst(tmp_path / f"killed-{number}") for number in range(1)]
        assert [result for _, result in pool.run(tasks)] == [7]
        assert len(pool.workers) == 2
        assert len({worker.place for worker in pool.workers} - killed) == 1


def test_an_address_that_does_not_answer_is_refused():
    with (
        pytest.raises(ClusterUnusable, match=r"--ray 127\.0\.0\.1:1: nothing answers there"),
        connected(Cluster("127.0.0.1:1")),
    ):
        pass
