"""A pool of workers: tasks in any order, workers that are lost, nodes that are set aside."""

import fake_ray
import pytest
import torch

from budc.compiler.workers.actor import About, own_versions
from budc.compiler.workers.pool import Pool
from budc.compiler.workers.queue import ATTEMPTS
from budc.compiler.workers.ray_cluster import Share
from budc.compiler.workers.started_worker import Starter, check_alike
from budc.compiler.workers.worker_pool import check_shared
from budc.schema.errors import ClusterUnusable, WeightsMissing

CPU = torch.device("cpu")


class Square:
    """A task that loses its worker as often as it is told, wherever it is told."""

    def __init__(self, number, losses=0, on=None):
        self.number, self.losses, self.on = number, losses, on

    def __call__(self, state):
        if self.losses and self.on in (None, state.get("node")):
            self.losses -= 1
            raise fake_ray.LostError("killed\nby hand")
        return self.number**2 + state["offset"]


class LoseWorkers:
    """A setup that so many workers do not survive."""

    def __init__(self, losses):
        self.losses = losses

    def __call__(self, state):
        if self.losses:
            self.losses -= 1
            raise fake_ray.LostError("killed")


def offset(state):
    state["offset"] = 1


def start(workers=2, nodes=("a",), seed=0):
    """Return a pool that has started, and the Ray that it runs on."""
    ray = fake_ray.FakeRay(nodes, seed)
    pool = Pool(Starter(ray, Share(1, 0), CPU, 1))
    pool.start(workers)
    for worker in pool.workers:
        worker.handle.worker._state["node"] = worker.node
    pool.set_up(offset)
    return pool, ray


def answers(pool, tasks):
    return [result for _, result in sorted(pool.run(tasks))]


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_every_task_is_done_once_in_whatever_order(workers):
    pool, _ = start(workers)
    assert answers(pool, [Square(number) for number in range(20)]) == [n**2 + 1 for n in range(20)]
    assert answers(pool, []) == []


@pytest.mark.parametrize("seed", range(5))
def test_a_lost_worker_loses_its_task_alone_and_another_is_started(seed, capsys):
    pool, ray = start(3, seed=seed)
    tasks = [Square(number, losses=1 if number in (2, 7) else 0) for number in range(9)]
    assert answers(pool, tasks) == [n**2 + 1 for n in range(9)]
    assert ray.started == {"a": 5}
    assert len(pool.workers) == 3
    assert "was lost (killed); another one is started" in capsys.readouterr().err
    assert pool.describe() == "3 workers" or "of 3" in pool.describe()


def test_a_task_that_loses_every_worker_ends_the_run():
    pool, _ = start(2)
    with pytest.raises(
        ClusterUnusable, match=f"a task has lost {ATTEMPTS} workers; the last one: worker 1 on host-a"
    ):
        answers(pool, [Square(3, losses=ATTEMPTS)])


@pytest.mark.parametrize("seed", range(5))
def test_a_node_that_loses_two_workers_is_set_aside_with_all_on_it(seed, capsys, monkeypatch):
    pool, _ = start(4, nodes=("good", "bad"), seed=seed)
    started = Starter.make_ready

    def known(self, worker):
        started(self, worker)
        worker.handle.worker._state["node"] = worker.node

    monkeypatch.setattr(Starter, "make_ready", known)
    tasks = [Square(number, losses=1, on="bad") for number in range(40)]
    assert answers(pool, tasks) == [n**2 + 1 for n in range(40)]
    assert {worker.node for worker in pool.workers} == {"good"}
    assert capsys.readouterr().err.count("its node is set aside") == 1


def test_the_last_node_is_never_set_aside():
    pool, _ = start(1)
    tasks = [Square(number, losses=2) for number in range(6)]
    assert answers(pool, tasks) == [n**2 + 1 for n in range(6)]


def test_what_a_worker_refuses_is_raised_with_its_place():
    pool, _ = start(2)

    def refuse(state):
        raise WeightsMissing("/models/wan: is not there", remedy="copy it")

    with pytest.raises(WeightsMissing, match="worker 1 on host-a: /models/wan: is not there") as caught:
        answers(pool, [refuse])
    assert caught.value.remedy == "copy it"
    with pytest.raises(WeightsMissing, match="worker 1 on host-a: /models/wan"):
        pool.set_up(refuse)


def test_a_worker_that_is_lost_while_it_is_set_up_is_replaced(capsys):
    pool, ray = start(2)
    pool.set_up(LoseWorkers(2))
    assert answers(pool, [Square(number) for number in range(4)]) == [1, 2, 5, 10]
    assert ray.started == {"a": 4}
    assert capsys.readouterr().err.count("another one is started") == 2


def test_workers_that_are_all_lost_while_they_are_set_up_end_the_run():
    pool, _ = start(2)
    pool.set_up(LoseWorkers(ATTEMPTS))
    with pytest.raises(
        ClusterUnusable, match=f"{ATTEMPTS} workers were lost while they were set up; the last"
    ):
        answers(pool, [Square(3)])


def test_a_folder_that_a_worker_does_not_see_is_refused(tmp_path, monkeypatch):
    pool, _ = start(2)
    check_shared(pool, tmp_path)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(pool.workers[1].handle.worker, "sees", lambda *_: False)
    with pytest.raises(ClusterUnusable, match="does not see this folder"):
        check_shared(pool, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_other_versions_and_devices_are_refused(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    same = About("a", "host", 7, "cpu, 1 thread", own_versions())
    check_alike(same, CPU, "worker 7")
    with pytest.raises(ClusterUnusable, match=r"worker 7 has torch 1\.0, this process"):
        check_alike(same._replace(versions=own_versions() | {"torch": "1.0"}), CPU, "worker 7")
    with pytest.raises(ClusterUnusable, match="worker 7 computes on H100, this process on cpu, 1 thread"):
        check_alike(same._replace(device="H100"), CPU, "worker 7")


def test_an_end_ends_all_workers():
    pool, ray = start(3)
    pool.close()
    assert len(ray.killed) == 3
