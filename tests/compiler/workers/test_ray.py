"""A local Ray cluster of two workers: the policy of one process, a worker that is killed, and slow or failing starts."""

import os
from pathlib import Path

import pytest
import torch
import toy_search

from budc.compiler.cluster import Cluster
from budc.compiler.selection.calibration import Calibration
from budc.compiler.selection.finder import Finder
from budc.compiler.selection.stages import stages_of
from budc.compiler.storage.journal import Journal
from budc.compiler.workers import ray_cluster
from budc.compiler.workers.ray_cluster import STARTS, connected
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
        result = Finder(Calibration(task, journal, None if workers is None else workers(journal))).find(task)
        return result, dict(journal.records)


@pytest.mark.parametrize("effort", ["fast", pytest.param("thorough", marks=pytest.mark.slow)])
def test_two_workers_find_what_one_process_finds_and_one_may_be_killed(
    effort, one_thread, tmp_path, monkeypatch
):
    monkeypatch.setenv("PYTHONPATH", f"{Path(toy_search.__file__).parent}:{os.environ.get('PYTHONPATH', '')}")
    task = toy_search.task(effort=effort)
    assert stages_of("joint", "fast", task.nfe, len(task.conditions), arbitrates=False).groups == 2
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


TRACEBACK = """Initialization failure from server:
Traceback (most recent call last):
  File "proxier.py", line 780, in Datapath
    raise RuntimeError(
RuntimeError: {}
"""
SLOW = TRACEBACK.format("Proxy failed to Connect to backend! Check `ray_client_server.err` on the head node.")


@pytest.fixture
def attempts(monkeypatch):
    """Let Ray start as this list says, one of it each time: None, or an error's text."""
    import ray

    attempts = []

    def init(**given):
        if (text := attempts.pop(0)) is not None:
            raise ConnectionAbortedError(text)

    monkeypatch.setattr(ray, "init", init)
    return attempts


@pytest.mark.parametrize(
    ("address", "said"),
    [("local", "The node timed out."), ("ray://10.0.0.1:10001", SLOW), ("10.0.0.1:6379", "It timed out.")],
)
def test_a_cluster_that_is_too_slow_is_tried_again_and_the_user_is_told(address, said, attempts, monkeypatch):
    told = []
    monkeypatch.setattr(ray_cluster, "notice", told.append)
    monkeypatch.setattr(ray_cluster, "check_answers", lambda where, address: None)
    attempts += [said] * (STARTS - 1) + [None]
    with connected(Cluster(address)):
        assert attempts == []
    assert told == [f"--ray {address}: Ray was too slow to start and is tried again"] * (STARTS - 1)


@pytest.mark.parametrize(
    ("said", "left", "told"),
    [
        ([SLOW] * STARTS, 0, "Proxy failed to Connect to backend"),
        (
            [TRACEBACK.format("Starting Ray client server failed."), None],
            1,
            "Starting Ray client server failed",
        ),
    ],
)
def test_what_does_not_pass_is_refused_with_the_cause(said, left, told, attempts):
    attempts += said
    with (
        pytest.raises(ClusterUnusable, match=f"^--ray local: RuntimeError: {told}"),
        connected(Cluster("local")),
    ):
        pass
    assert len(attempts) == left
