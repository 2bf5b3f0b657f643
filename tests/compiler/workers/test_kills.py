"""A compile on a cluster whose driver or workers are killed, at any moment: the artifact is that of no kill."""

import random
from collections import Counter

import killing
import pytest

SCRIPT = """
os.environ |= environment
from budc.compiler.compile import compile_artifacts
from budc.compiler.policy_source import make_request
from budc.compiler.workers import pool as pools
starting = pools.Pool.start
crew = []
def start(self, count):
    starting(self, count)
    crew.append(self)
pools.Pool.start = start
reporting = Journal.put
def ending(self, key, value):
    reporting(self, key, value)
    if crew and len(self.records) == end_a_worker:
        os.kill(int(crew[0].workers[0].place.split()[1]), 9)
Journal.put = ending
compile_artifacts(make_request({}, flags).resolve())
"""


@pytest.fixture
def flags(wan_folder, prompt_file):
    return {
        "model": "wan2.1-nano",
        "weights": str(wan_folder),
        "calibration": str(prompt_file),
        "held_out": None,
        "held_out_size": 2,
        **{"budget": "2", "steps": 5, "height": 32, "width": 48, "frames": 5, "no_frames": True},
    }


def check_kills(tmp_path, cluster, flags, driver_kills, worker_kills):
    """Kill so many drivers one after another, then so many workers, one in each compile."""
    flags = {name: value for name, value in flags.items() if value is not None}

    def attempt(out, kill_after=None, end_a_worker=0, **more):
        given = flags | more | {"out": str(out)}
        return killing.run(
            SCRIPT,
            tmp_path / "log",
            measurements=kill_after,
            flags=given,
            end_a_worker=end_a_worker,
            environment=cluster.environment,
        )

    rng, ray = random.Random(3), {"ray": cluster.addresses["host:port"], "workers": 2, "batch": 4}
    undisturbed, out = tmp_path / "undisturbed.budc.json", tmp_path / "killed.budc.json"
    needed = attempt(undisturbed, batch=4).measured
    records = []
    for left in range(driver_kills, 0, -1):
        before = len(records)
        # Spread over what is left, so that every call computes something and the last one is killed, too.
        attempt(out, kill_after=1 + rng.randrange(max(1, (len(needed) - before) // left)), **ray)
        records = killing.journalled(tmp_path)
        assert max(Counter(records).values(), default=1) == 1, "nothing is scored twice"
    # What is left is computed without Ray.
    last = attempt(out, batch=4)
    assert sorted(records + last.measured) == sorted(needed)
    assert out.read_bytes() == undisturbed.read_bytes()
    for number in range(worker_kills):
        out = tmp_path / f"worker-{number}.budc.json"
        ended = attempt(out, end_a_worker=1 + rng.randrange(len(needed) - 1), **ray)
        assert sorted(ended.measured) == sorted(needed)
        assert out.read_bytes() == undisturbed.read_bytes()


@pytest.mark.slow
def test_a_killed_driver_and_a_killed_worker_change_nothing(cluster, flags, tmp_path):
    check_kills(tmp_path, cluster, flags, driver_kills=2, worker_kills=1)


@pytest.mark.slow
@pytest.mark.endless
def test_kills_at_twenty_moments_change_nothing(cluster, flags, tmp_path):
    check_kills(tmp_path, cluster, flags, driver_kills=10, worker_kills=10)
