"""Commands on a cluster that stands: every kind of address, any number of workers, a transfer, and Ctrl-C."""

import re
import time
from pathlib import Path

import killing
import psutil
import pytest

from budc import policies

pytestmark = pytest.mark.slow

COMMAND = """
os.environ |= environment
from budc.cli import main
assert main(arguments) == 0
"""
INTERRUPTED = """
import signal, time
os.environ |= environment
from budc.cli import main
from budc.compiler.workers import pool as pools
starting = pools.Pool.start
def start(self, count):
    starting(self, count)
    for worker in self.workers:
        reports.send(worker.place)
pools.Pool.start = start
# It is ignored in what a shell runs in the background.
signal.signal(signal.SIGINT, signal.default_int_handler)
reporting = Journal.put
def interrupting(self, key, value):
    reporting(self, key, value)
    if len(self.records) == interrupted_after:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        # Until then, or a fast compile ends first.
        time.sleep(60)
Journal.put = interrupting
assert main(arguments) == 130
"""


@pytest.fixture(scope="module")
def compiling(eight_prompts, tmp_path_factory):
    """Return a function that runs a compile, and the compile of one process without Ray: its work and its bytes."""
    log = tmp_path_factory.mktemp("log") / "log"
    given = {name.replace("_", "-"): value for name, value in eight_prompts.items() if name != "out"}
    flags = [f"--{name}={value}" for name, value in given.items()]

    def compiling(out, *more, environment=(), script=COMMAND, **names):
        arguments = ["compile", "--budget=3", "--batch=8", "--no-frames", *flags, f"--out={out}", *more]
        ended = killing.run(script, log, arguments=arguments, environment=dict(environment), **names)
        return ended, log.read_text()

    out = tmp_path_factory.mktemp("alone") / "policy.budc.json"
    ended, _ = compiling(out)
    return compiling, ended.measured, out.read_bytes()


@pytest.mark.parametrize(("address", "workers"), [("auto", 1), ("host:port", 2), ("ray://host:port", 8)])
def test_every_address_and_number_of_workers_makes_the_bytes_of_one_process(
    address, workers, cluster, compiling, tmp_path
):
    run, needed, expected = compiling
    out = tmp_path / "policy.budc.json"
    given = f"--ray={cluster.addresses[address]}", f"--workers={workers}"
    ended, _ = run(out, *given, environment=cluster.environment)
    assert sorted(ended.measured) == sorted(needed)
    assert out.read_bytes() == expected


def test_a_transfer_makes_the_bytes_of_one_process(cluster, compiling, eight_prompts, tmp_path):
    _, _, source = compiling
    (tmp_path / "source.budc.json").write_bytes(source)
    written = []
    for out, more in (
        ("alone", []),
        ("together", [f"--ray={cluster.addresses['host:port']}", "--workers=2"]),
    ):
        path = tmp_path / f"{out}.budc.json"
        arguments = [
            "transfer",
            str(tmp_path / "source.budc.json"),
            f"--to={small_profile(eight_prompts, tmp_path)}",
        ]
        flags = ["--allow-unsigned", "--effort=fast", "--nearby", "--batch=4", "--no-frames", f"--out={path}"]
        killing.run(
            COMMAND, tmp_path / "log", arguments=arguments + flags + more, environment=cluster.environment
        )
        written.append(path.read_bytes())
    assert written[0] == written[1] != source


def test_an_interrupt_ends_the_workers_and_the_same_command_resumes(cluster, compiling, tmp_path):
    run, needed, expected = compiling
    out = tmp_path / "policy.budc.json"
    ended, log = run(
        out,
        *(f"--ray={cluster.addresses['host:port']}", "--workers=2"),
        script=INTERRUPTED,
        environment=cluster.environment,
        interrupted_after=5,
    )
    assert log.splitlines()[-1] == "interrupted: run the same command again to resume"
    assert "Traceback" not in log
    places = [report for report in ended.measured if report.startswith("worker ")]
    assert len(places) == 2
    gone_by(time.monotonic() + 30, [int(place.split()[1]) for place in places])
    measured = [report for report in ended.measured if report not in places]
    again, _ = run(out)
    assert sorted(measured + again.measured) == sorted(needed)
    assert out.read_bytes() == expected


def gone_by(deadline, pids):
    """Wait until no process is left; one that has ended and is not collected yet counts as gone."""
    while running := [
        pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"
    ]:
        assert time.monotonic() < deadline, running
        time.sleep(0.2)


def small_profile(compiled, folder):
    """Return a profile of the user's own, with the settings that `compiled` has."""
    text = Path(policies.__file__).with_name("wan2.1-nano.toml").read_text()
    text = re.sub(r"^embedded = .*$", f'weights = "{compiled["weights"]}"', text, flags=re.MULTILINE)
    settings = {name: compiled[name] for name in ("steps", "height", "width", "frames")}
    settings |= {name: f'"{compiled[name]}"' for name in ("calibration", "held_out")}
    for name, value in (settings | {"name": '"small"', "calibration_size": 8, "held_out_size": 1}).items():
        text = re.sub(rf"^{name} = .*$", f"{name} = {value}", text, flags=re.MULTILINE)
    path = folder / "small.toml"
    path.write_text(text)
    return path
