"""The batcher: requests wait in one queue, and those of one tier are generated together.

The oldest request decides which tier is next; later ones of that tier join it, up to the largest batch. Nobody
waits for a batch to fill up. One thread calls the engine, so that a batch never meets a change of policies.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from engines import Engine
from metrics import Metrics

T = TypeVar("T")


class BusyError(Exception):
    """The queue is full, or the service is stopping."""


class NoSuchTierError(Exception):
    """No policy of so many evaluations is held."""


@dataclass(frozen=True)
class Sample:
    """What one request gets."""

    frames: np.ndarray
    """(frames, height, width, 3) in 0..1."""
    policy: str
    """The name of the policy that generated it."""
    batch: int
    """How many requests were generated together."""
    loop_seconds: float
    queue_seconds: float


@dataclass(frozen=True, eq=False)
class _Request:
    nfe: int
    prompt: str
    seed: int
    arrived: float
    sample: asyncio.Future[Sample]


class Batcher:
    """Generates requests in batches of one tier. Tiers are told apart by their evaluations (NFE).

    Args:
        engine: the model.
        largest: samples of a batch.
        waiting: requests that may wait; one more is refused.
        metrics: what is counted.
    """

    def __init__(self, engine: Engine, largest: int, waiting: int, metrics: Metrics) -> None:
        self._engine, self._largest, self._waiting, self._metrics = engine, largest, waiting, metrics
        self._queue: deque[_Request] = deque()
        self._arrival = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "engine")
        self.stopping = False

    @property
    def policies(self) -> dict[int, Any]:
        """NFE → policy document, cheapest first."""
        return {document.budget.nfe: document for document in sorted(self._engine.held.policies, key=_nfe)}

    async def generate(self, prompt: str, seed: int, nfe: int | None = None) -> Sample:
        """Return one sample; `nfe` is the tier, default the cheapest.

        Raises:
            BusyError: the queue is full, or the service is stopping.
            NoSuchTierError: there is no such tier, or it is gone since the request came.
            BudcError: the runtime refuses the run.
        """
        if self.stopping or len(self._queue) >= self._waiting:
            raise BusyError("the service is stopping" if self.stopping else "too many requests are waiting")
        nfe = next(iter(self.policies)) if nfe is None else nfe
        self._check_tier(nfe)
        sample: asyncio.Future[Sample] = asyncio.get_running_loop().create_future()
        request = _Request(nfe, prompt, seed, time.perf_counter(), sample)
        self._queue.append(request)
        self._metrics.waiting.set(len(self._queue))
        self._arrival.set()
        return await sample

    async def run(self) -> None:
        """Generate what is asked for until `stop`, and then what is still waiting."""
        while self._queue or not self.stopping:
            await self._arrival.wait()
            self._arrival.clear()
            while self._queue:
                await self._run_batch(self._next_batch())

    def stop(self) -> None:
        """Refuse new requests; `run` ends when nobody waits any more."""
        self.stopping = True
        self._arrival.set()

    async def call(self, function: Callable[[], T]) -> T:
        """Call a function that uses the engine, between two batches."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    def _check_tier(self, nfe: int) -> None:
        if nfe not in self.policies:
            raise NoSuchTierError(
                f"there is no tier of {nfe} evaluations, only of {', '.join(map(str, self.policies))}"
            )

    def _next_batch(self) -> list[_Request]:
        oldest = self._queue[0]
        batch = [request for request in self._queue if request.nfe == oldest.nfe][: self._largest]
        for request in batch:
            self._queue.remove(request)
        self._metrics.waiting.set(len(self._queue))
        return batch

    async def _run_batch(self, batch: list[_Request]) -> None:
        nfe, started = batch[0].nfe, time.perf_counter()
        prompts, seeds = [request.prompt for request in batch], [request.seed for request in batch]
        try:
            self._check_tier(nfe)
            policy = self.policies[nfe].name
            done = await self.call(lambda: self._engine.generate(nfe, prompts, seeds))
        except Exception as error:
            for request in batch:
                if not request.sample.done():
                    request.sample.set_exception(error)
            return
        self._metrics.loop.labels(nfe, len(batch)).observe(done.seconds)
        for request, frames in zip(batch, done.frames, strict=True):
            queued = started - request.arrived
            self._metrics.queue.labels(nfe).observe(queued)
            # A request whose client has gone is cancelled.
            if not request.sample.done():
                request.sample.set_result(Sample(frames, policy, len(batch), done.seconds, queued))


def _nfe(document: Any) -> int:
    return int(document.budget.nfe)
