"""Serve a model over HTTP, with a choice of quality for each request.

    python serve.py --model flux-nano
    python serve.py --onnx export --policies policies --trust publisher.pub

Every policy in the folder is a tier, named by its evaluations (NFE). Without --policies they are those that come with
the package. SIGHUP verifies the folder's policies again and goes over to them between two batches; if one is refused,
those before stay. SIGTERM answers who is waiting, then ends.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvicorn
from app import make_app
from batcher import Batcher
from engines import DiffusersEngine, Engine, OnnxEngine
from metrics import Metrics

import budc

log = logging.getLogger("uvicorn.error")


def arguments() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="flux-nano", help="a name that `budc models` lists, for diffusers")
    parser.add_argument("--weights", type=Path, help="its model folder")
    parser.add_argument("--onnx", type=Path, help="an export instead, for ONNX Runtime")
    parser.add_argument("--provider", choices=["cpu", "cuda"], default="cpu", help="of ONNX Runtime")
    parser.add_argument("--policies", type=Path, help="a folder of .budc.json files")
    parser.add_argument("--trust", type=Path, help="the publisher's public key, or a trust file (.toml)")
    parser.add_argument("--largest-batch", type=int, default=4)
    parser.add_argument("--waiting", type=int, default=64, help="requests that may wait; one more gets a 503")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    asked = parser.parse_args()
    if asked.onnx is not None and asked.policies is None:
        parser.error("--onnx needs --policies: those of the package are not bound to your export")
    if asked.largest_batch < 1 or asked.waiting < 1:
        parser.error("--largest-batch and --waiting are at least 1")
    return asked


def policies_of(asked: argparse.Namespace) -> tuple[Sequence[Any], budc.Trust | None]:
    """Return the policies and whom to trust, both read anew. Raises BudcError."""
    if asked.policies is None:
        from budc.policies.embedded_policies import embedded_policies

        return [
            budc.embedded_policy(asked.model, nfe=entry.nfe) for entry in embedded_policies(asked.model)
        ], None
    trust = None
    if asked.trust is not None:
        trust = (
            budc.Trust.load(asked.trust)
            if asked.trust.suffix == ".toml"
            else budc.Trust.from_pem(asked.trust)
        )
    return sorted(asked.policies.glob("*.budc.json")), trust


def open_engine(asked: argparse.Namespace) -> Engine:
    """Load the model under its policies, and run every tier once. Raises BudcError."""
    policies, trust = policies_of(asked)
    engine: Engine
    if asked.onnx is not None:
        engine = OnnxEngine(asked.onnx, policies, trust, asked.provider)
    else:
        engine = DiffusersEngine(asked.model, asked.weights, policies, trust)
    for document in engine.held.policies:
        for batch in {1, asked.largest_batch}:
            engine.generate(document.budget.nfe, ["warm-up"] * batch, range(batch))
    return engine


async def serve(asked: argparse.Namespace, engine: Engine) -> None:
    """Serve until SIGTERM or SIGINT."""
    metrics = Metrics()
    batcher = Batcher(engine, asked.largest_batch, asked.waiting, metrics)
    server = uvicorn.Server(uvicorn.Config(make_app(batcher, metrics), host=asked.host, port=asked.port))
    reloads: set[asyncio.Task[None]] = set()

    def replace() -> None:
        policies, trust = policies_of(asked)
        engine.held.replace(policies, trust=trust)

    async def reload() -> None:
        try:
            await batcher.call(replace)
        except budc.BudcError as error:
            metrics.reloads.labels("refused").inc()
            log.error("the policies stay as they are: %s", error)
        else:
            metrics.reloads.labels("done").inc()
            log.info("now serving %s", ", ".join(document.name for document in batcher.policies.values()))

    def on_hangup() -> None:
        task = asyncio.create_task(reload())
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, on_hangup)
    # uvicorn raises the signal that ended it once more: by then all is done.
    signal.signal(signal.SIGTERM, lambda *_: None)
    await server.serve()


def main() -> int:
    """Serve; return the exit code."""
    asked = arguments()
    try:
        engine = open_engine(asked)
    except budc.BudcError as error:
        print(f"serve: {error}\n  {error.remedy}", file=sys.stderr)
        return error.exit_code
    with suppress(KeyboardInterrupt):
        asyncio.run(serve(asked, engine))
    return 0


if __name__ == "__main__":
    sys.exit(main())
