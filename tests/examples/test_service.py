"""The example of a service: batches, refusals and changes with an engine of arithmetic; all of it over HTTP as a slow test."""

import asyncio
import importlib
import io
import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")
pytest.importorskip("httpx2")

SERVICE = Path(__file__).parents[2] / "examples" / "service"
MODULES = ("engines", "metrics", "batcher", "app", "load_test")


@pytest.fixture(scope="module")
def service() -> Iterator[SimpleNamespace]:
    """The example's modules, imported as its scripts do."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.syspath_prepend(SERVICE)
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in MODULES})
        for name in MODULES:
            del sys.modules[name]


def policy(nfe: int) -> SimpleNamespace:
    return SimpleNamespace(
        name=f"policy-{nfe}", revision=1, budget=SimpleNamespace(nfe=nfe), sampler=SimpleNamespace(steps=12)
    )


class Arithmetic:
    """An engine whose pictures hold the seed and the NFE; `opened` keeps it at work until it is set."""

    def __init__(self, batch_of: type) -> None:
        self.held = SimpleNamespace(policies=[policy(10), policy(4)])
        self.batches: list[tuple[int, list[str]]] = []
        self.opened = threading.Event()
        self.opened.set()
        self._batch_of = batch_of

    def generate(self, nfe: int, prompts: Sequence[str], seeds: Sequence[int]) -> Any:
        assert self.opened.wait(60)
        self.batches.append((nfe, list(prompts)))
        if "refused" in prompts:
            from budc import BudcError

            raise BudcError("refused: by the runtime")
        frames = [np.full((1, 2, 2, 3), (100 * seed + nfe) / 255, np.float32) for seed in seeds]
        return self._batch_of(np.stack(frames), 0.25)


@pytest.fixture
def engine(service: SimpleNamespace) -> Arithmetic:
    return Arithmetic(service.engines.Batch)


def batcher_of(service: SimpleNamespace, engine: Arithmetic, waiting: int = 64) -> Any:
    return service.batcher.Batcher(engine, 2, waiting, service.metrics.Metrics())


async def all_samples(batcher: Any, engine: Arithmetic, asked: Sequence[tuple[str, int, int]]) -> list[Any]:
    """Ask for samples (prompt, seed, nfe) while the engine is at work on the first, then let it go on to the end."""
    engine.opened.clear()
    running = asyncio.create_task(batcher.run())
    tasks = []
    for request in asked:
        tasks.append(asyncio.create_task(batcher.generate(*request)))
        await asyncio.sleep(0.01)
    batcher.stop()
    engine.opened.set()
    samples = await asyncio.gather(*tasks, return_exceptions=True)
    await running
    return samples


def test_requests_of_one_tier_are_generated_together(service: SimpleNamespace, engine: Arithmetic) -> None:
    asked = [("a", 0, 4), ("b", 1, 10), ("c", 2, 4), ("d", 1, 10), ("e", 0, 10), ("f", 1, 4)]
    batcher = batcher_of(service, engine)
    samples = asyncio.run(all_samples(batcher, engine, asked))
    # "a" is at work when the others come; "b" is then the oldest.
    assert engine.batches == [(4, ["a"]), (10, ["b", "d"]), (4, ["c", "f"]), (10, ["e"])]
    for (_, seed, nfe), sample in zip(asked, samples, strict=True):
        np.testing.assert_allclose(sample.frames * 255, 100 * seed + nfe, rtol=1e-5)
        assert sample.policy == f"policy-{nfe}"
        assert sample.loop_seconds == 0.25
    assert [sample.batch for sample in samples] == [1, 2, 2, 2, 1, 2]
    assert samples[5].queue_seconds > samples[0].queue_seconds


def test_a_batch_that_fails_fails_alone(service: SimpleNamespace, engine: Arithmetic) -> None:
    asked = [("a", 0, 4), ("refused", 1, 10), ("c", 2, 4)]
    first, second, third = asyncio.run(all_samples(batcher_of(service, engine), engine, asked))
    assert str(second) == "refused: by the runtime"
    assert (first.batch, third.batch) == (1, 1)


def test_a_full_queue_and_a_tier_that_is_gone_are_refused(
    service: SimpleNamespace, engine: Arithmetic
) -> None:
    asked = [("a", 0, 4), ("b", 0, 10), ("c", 0, 4), ("d", 0, 4), ("e", 0, 7)]
    batcher = batcher_of(service, engine, waiting=2)
    samples = asyncio.run(all_samples(batcher, engine, asked))
    assert str(samples[3]) == str(samples[4]) == "too many requests are waiting"

    async def gone() -> list[Any]:
        def drop() -> None:
            engine.held.policies = engine.held.policies[1:]

        batcher = batcher_of(service, engine)
        request = asyncio.create_task(batcher.generate("a", 0, 10))
        await asyncio.sleep(0)
        await batcher.call(drop)
        batcher.stop()
        await batcher.run()
        return await asyncio.gather(request, return_exceptions=True)

    assert str(asyncio.run(gone())[0]) == "there is no tier of 10 evaluations, only of 4"


def test_what_a_client_sees(service: SimpleNamespace, engine: Arithmetic) -> None:
    from fastapi.testclient import TestClient
    from PIL import Image

    metrics = service.metrics.Metrics()
    batcher = service.batcher.Batcher(engine, 2, 64, metrics)
    with TestClient(service.app.make_app(batcher, metrics)) as client:
        assert client.get("/health").json() == {"status": "ready"}
        assert [tier["nfe"] for tier in client.get("/tiers").json()] == [4, 10]
        answer = client.post("/generate", json={"prompt": "a", "seed": 1, "nfe": 10})
        assert answer.status_code == 200
        assert answer.headers["x-policy"] == "policy-10"
        assert np.asarray(Image.open(io.BytesIO(answer.content))).tolist() == [[[110] * 3] * 2] * 2
        assert client.post("/generate", json={"prompt": "a"}).headers["x-policy"] == "policy-4"
        for content, status, detail in (
            ('{"prompt": "a", "nfe": 7}', 404, "there is no tier of 7 evaluations, only of 4, 10"),
            ('{"prompt": "refused"}', 500, "refused: by the runtime"),
            ('{"prompt": ""}', 422, ["prompt: String should have at least 1 character"]),
            ('{"prompt": "a", "seed": -1}', 422, ["seed: Input should be greater than or equal to 0"]),
            ('{"prompt": "a", "steps": 3}', 422, ["steps: Extra inputs are not permitted"]),
        ):
            answer = client.post("/generate", content=content, headers={"Content-Type": "application/json"})
            assert (answer.status_code, answer.json()["detail"]) == (status, detail)
        # Neither of these can be said again in JSON.
        for content in ('{"prompt": "\\ud800"}', '{"prompt": "a", "nfe": 1e400}'):
            answer = client.post("/generate", content=content, headers={"Content-Type": "application/json"})
            assert answer.status_code == 422
        shown = client.get("/metrics").text
        assert 'budc_loop_seconds_sum{batch="1",nfe="10"} 0.25' in shown
        assert 'budc_answers_total{status="422"} 5.0' in shown
        batcher.stopping = True
        assert client.get("/health").status_code == 503
        answer = client.post("/generate", json={"prompt": "a"})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def test_several_frames_are_an_animated_png(service: SimpleNamespace) -> None:
    frames = np.stack([np.full((2, 3, 3), value, np.float32) for value in (0.0, 0.5, 1.0)])
    rows = service.load_test.pixels(service.app.to_png(frames)).reshape(3, -1)
    assert rows.min(axis=1).tolist() == rows.max(axis=1).tolist() == [0, 128, 255]


# The whole, in a process of its own ------------------------------------------------------------------------


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def started(log: Path, port: int, *flags: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, SERVICE / "serve.py", "--port", str(port), *flags]
    with log.open("wb") as output:
        process = subprocess.Popen([str(part) for part in command], stderr=output)
    for _ in range(600):
        assert process.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health")
        except urllib.error.URLError:
            time.sleep(0.2)
        else:
            return process
    raise AssertionError(log.read_text())


def load_tested(port: int, requests: int) -> str:
    command = [sys.executable, SERVICE / "load_test.py", "--url", f"http://127.0.0.1:{port}"]
    command += ["--requests", str(requests), "--clients", "4"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_served_export_loses_and_mixes_up_nothing(
    untrained_export: Any, exported: Path, signer: Any, key_pair: Any, tmp_path: Path, port: int
) -> None:
    from budc.runtimes.testing import GOLDEN
    from budc.schema.artifact import seal

    policies = tmp_path / "policies"
    policies.mkdir()
    (tmp_path / "release.pub").write_bytes(key_pair.public)
    for name in ("one evaluation", "three terms"):
        document = GOLDEN[name].document(untrained_export)
        (policies / f"{document.budget.nfe}.budc.json").write_bytes(seal(document, signer))
    log = tmp_path / "log"
    flags = ["--onnx", exported, "--policies", policies, "--trust", tmp_path / "release.pub"]
    process = started(log, port, *flags)
    try:
        assert "lost 0, mixed up 0" in load_tested(port, 60)
        (policies / "3.budc.json").write_text("{}")
        process.send_signal(signal.SIGHUP)
        wait_for(log, "the policies stay as they are: ")
        assert str(policies / "3.budc.json") in log.read_text()
        (policies / "3.budc.json").unlink()
        process.send_signal(signal.SIGHUP)
        wait_for(log, "now serving ")
        tiers = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/tiers"))
        assert [tier["nfe"] for tier in tiers] == [1]
    finally:
        process.terminate()
        assert process.wait(60) == 0


@pytest.mark.slow
def test_who_waits_when_it_ends_is_answered(tmp_path: Path, port: int) -> None:
    process = started(tmp_path / "log", port, "--model", "flux-nano", "--largest-batch", "2")
    answers: list[int] = []

    def ask(seed: int) -> None:
        body = json.dumps({"prompt": "a red box", "seed": seed, "nfe": 14}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/generate", body, {"Content-Type": "application/json"}
        )
        answers.append(urllib.request.urlopen(request).status)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(5)]
    for thread in threads:
        thread.start()
    for _ in range(600):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as shown:
            if b"budc_waiting_requests 3.0" in shown.read():
                break
        time.sleep(0.02)
    process.terminate()
    for thread in threads:
        thread.join(60)
    assert answers == [200] * 5
    assert process.wait(60) == 0


def wait_for(log: Path, text: str) -> None:
    for _ in range(300):
        if text in log.read_text():
            return
        time.sleep(0.1)
    raise AssertionError(log.read_text())


def test_the_image_takes_the_code_alone() -> None:
    root = SERVICE.parents[1]
    lines = (SERVICE / "Containerfile").read_text().splitlines()
    copies = [line.split()[1:] for line in lines if line.startswith("COPY ")]
    copied = {source for *sources, _ in copies for source in sources}
    # A checkout may hold private keys and models: nothing is copied but by its name.
    assert all((root / source).exists() and Path(source).parts for source in copied)
    linked = {path.resolve().relative_to(root).parts[0] for path in (root / "src" / "budc").iterdir()}
    assert linked <= copied
