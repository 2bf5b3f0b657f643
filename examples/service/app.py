"""The HTTP interface.

POST /generate   {"prompt": "a red box", "seed": 0, "nfe": 6} → a PNG, animated if it has several frames
GET  /tiers      the policies, cheapest first
GET  /health     200 while requests are taken, else 503
GET  /metrics    for Prometheus
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import numpy as np
from batcher import Batcher, BusyError, NoSuchTierError
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from metrics import Metrics
from PIL import Image
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, ConfigDict, Field

import budc


class GenerateRequest(BaseModel):
    """What a client sends."""

    model_config = ConfigDict(extra="forbid")

    prompt: Annotated[str, Field(min_length=1, max_length=4096)]
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    nfe: int | None = None
    """The tier: how often the network is evaluated. Default the cheapest."""


def make_app(batcher: Batcher, metrics: Metrics) -> FastAPI:
    """Return the application; it stops when nobody waits for a sample any more."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        running = asyncio.create_task(batcher.run())
        yield
        batcher.stop()
        await running

    app = FastAPI(title="budc", lifespan=lifespan)

    @app.exception_handler(RequestValidationError)
    async def refuse(_request: Request, error: RequestValidationError) -> JSONResponse:
        metrics.answers.labels(422).inc()
        return JSONResponse({"detail": what_is_invalid(error)}, 422)

    @app.post("/generate", response_class=Response, responses={200: {"content": {"image/png": {}}}})
    async def generate(asked: GenerateRequest) -> Response:
        try:
            sample = await batcher.generate(asked.prompt, asked.seed, asked.nfe)
        except (BusyError, NoSuchTierError, budc.BudcError) as error:
            refusal = as_http(error)
            metrics.answers.labels(refusal.status_code).inc()
            raise refusal from error
        metrics.answers.labels(200).inc()
        headers = {
            "X-Policy": sample.policy,
            "X-Batch": str(sample.batch),
            "X-Loop-Seconds": f"{sample.loop_seconds:.6f}",
            "X-Queue-Seconds": f"{sample.queue_seconds:.6f}",
        }
        png = await asyncio.to_thread(to_png, sample.frames)
        return Response(png, media_type="image/png", headers=headers)

    @app.get("/tiers")
    async def tiers() -> list[dict[str, Any]]:
        return [
            {
                "nfe": nfe,
                "steps": document.sampler.steps,
                "policy": document.name,
                "revision": document.revision,
            }
            for nfe, document in batcher.policies.items()
        ]

    @app.get("/health")
    async def health(response: Response) -> dict[str, str]:
        response.status_code = 503 if batcher.stopping else 200
        return {"status": "stopping" if batcher.stopping else "ready"}

    @app.get("/metrics")
    async def show_metrics() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return app


def what_is_invalid(error: RequestValidationError) -> list[str]:
    """Return a line for each invalid field, without what was sent: that may be no text that JSON can hold."""
    return [f"{'.'.join(map(str, entry['loc'][1:]))}: {entry['msg']}" for entry in error.errors()]


def as_http(error: Exception) -> HTTPException:
    """Return the answer for a request that has no sample."""
    if isinstance(error, BusyError):
        return HTTPException(503, str(error), {"Retry-After": "1"})
    return HTTPException(404 if isinstance(error, NoSuchTierError) else 500, str(error))


def to_png(frames: np.ndarray) -> bytes:
    """Return frames (F, H, W, 3) in 0..1 as a PNG, animated if there are several."""
    images = [Image.fromarray(frame) for frame in np.rint(frames * 255).clip(0, 255).astype(np.uint8)]
    file = io.BytesIO()
    images[0].save(file, "PNG", save_all=len(images) > 1, append_images=images[1:], duration=62)
    return file.getvalue()
