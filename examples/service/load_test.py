"""Ask a running service for many samples at once, and check that each client gets its own.

    python load_test.py --url http://127.0.0.1:8000 --requests 200 --clients 8

First every prompt is generated alone in every tier. Then clients ask for all of them in a shuffled order. An answer is
lost if it is no 200, and mixed up if it is nearer to the picture of another request than to its own. At most 10 000
requests are sent, and only to this machine.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import random
import sys
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

import numpy as np
from PIL import Image, ImageSequence

LOOPBACK = {"127.0.0.1", "::1", "localhost"}
MOST = 10_000
COLOURS, SHAPES = ("red", "blue", "green"), ("box", "circle", "cross")


@dataclass(frozen=True)
class Asked:
    """One request."""

    prompt: str
    seed: int
    nfe: int


@dataclass(frozen=True)
class Answer:
    """What came back, and the seconds that the client waited."""

    status: int
    body: bytes
    headers: http.client.HTTPMessage
    seconds: float


def call(url: str, path: str, body: dict[str, object] | None = None) -> Answer:
    """Send one request; status 0 stands for a connection that broke."""
    address = urlsplit(url)
    assert address.hostname is not None
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=600)
    started = time.perf_counter()
    try:
        headers = {"Content-Type": "application/json"}
        connection.request("GET" if body is None else "POST", path, body and json.dumps(body), headers)
        answer = connection.getresponse()
        return Answer(answer.status, answer.read(), answer.headers, time.perf_counter() - started)
    except (OSError, http.client.HTTPException):
        return Answer(0, b"", http.client.HTTPMessage(), time.perf_counter() - started)
    finally:
        connection.close()


def generate(url: str, asked: Asked) -> Answer:
    """Ask for one sample."""
    return call(url, "/generate", {"prompt": asked.prompt, "seed": asked.seed, "nfe": asked.nfe})


def pixels(png: bytes) -> np.ndarray:
    """Return all frames of a PNG as one row of values."""
    frames = [
        np.asarray(frame.convert("RGB"), np.float32)
        for frame in ImageSequence.Iterator(Image.open(io.BytesIO(png)))
    ]
    return np.stack(frames).reshape(-1)


def run(url: str, requests: int, clients: int) -> bool:
    """Run the test and print what came out; return whether no request was lost or mixed up."""
    tiers = [tier["nfe"] for tier in json.loads(call(url, "/tiers").body)]
    prompts = [f"a {colour} {shape}" for colour in COLOURS for shape in SHAPES]
    work = [Asked(prompt, seed, nfe) for seed, prompt in enumerate(prompts) for nfe in tiers]
    alone = [pixels(generate(url, asked).body) for asked in work]
    order = [index % len(work) for index in range(requests)]
    random.Random(0).shuffle(order)

    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        answers = list(pool.map(lambda index: generate(url, work[index]), order))
    seconds = time.perf_counter() - started

    lost = sum(answer.status != 200 for answer in answers)
    mixed, loops = 0, defaultdict(list)
    for index, answer in zip(order, answers, strict=True):
        if answer.status == 200:
            picture = pixels(answer.body)
            mixed += int(np.argmin([np.abs(picture - other).mean() for other in alone])) != index
            size = (work[index].nfe, int(answer.headers["X-Batch"]))
            loops[size].append(float(answer.headers["X-Loop-Seconds"]))
    print(
        f"{requests} requests, {clients} clients: {requests / seconds:.1f} a second, lost {lost}, mixed up {mixed}"
    )
    print(f"answered in   {percentiles([answer.seconds for answer in answers])}")
    for (nfe, batch), values in sorted(loops.items()):
        print(f"loop, {nfe:2d} NFE, batch {batch}   {percentiles(values)}")
    return lost == mixed == 0


def percentiles(seconds: list[float]) -> str:
    """Return p50 and p99 in milliseconds."""
    p50, p99 = np.percentile(seconds, [50, 99]) * 1000
    return f"p50 {p50:8.1f} ms   p99 {p99:8.1f} ms"


def main() -> int:
    """Run the test; return 1 if a request was lost or mixed up."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--clients", type=int, default=8)
    asked = parser.parse_args()
    if urlsplit(asked.url).hostname not in LOOPBACK:
        parser.error("--url: only a service on this machine is tested")
    if not 1 <= asked.requests <= MOST or not 1 <= asked.clients <= 256:
        parser.error(f"--requests is from 1 to {MOST}, --clients from 1 to 256")
    return 0 if run(asked.url, asked.requests, asked.clients) else 1


if __name__ == "__main__":
    sys.exit(main())
