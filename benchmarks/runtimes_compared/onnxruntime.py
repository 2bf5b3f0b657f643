"""An ONNX export under a policy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from budc.runtimes.onnxruntime.denoising_loop import DenoisingLoop
from budc.runtimes.onnxruntime.io_binding import Buffer, Call
from budc.runtimes.onnxruntime.pipeline import load
from budc.runtimes.onnxruntime.sessions import Sessions
from budc.schema.artifact import read
from runtimes_compared.loop import SEED, Loop


def prepare(path: Path, export: Path, prompt: str, threads: int, provider: str) -> Loop:
    """Prepare the export under the policy."""
    pipe = load(read(path), export, provider=provider, threads=threads, allow_unsigned=True)
    # The forward that is timed is of the session that the loop runs.
    sessions, embeddings = Sessions(export, pipe.manifest, pipe.provider), pipe.encode([prompt])
    denoiser, noise = DenoisingLoop(sessions, pipe.document), pipe.noise(SEED)
    branches, compute = len(next(iter(embeddings.values()))), pipe.manifest.graphs["compute"]
    buffers = {
        spec.name: Buffer.of(
            pipe.provider,
            np.ones([branches if extent is None else extent for extent in spec.shape], spec.dtype),
        )
        for spec in (*compute.inputs, *compute.outputs)
    }
    inputs = {spec.name: buffers[spec.name] for spec in compute.inputs}
    outputs = {spec.name: buffers[spec.name] for spec in compute.outputs}
    forward = Call(sessions.of("compute", branches), inputs, outputs, sessions.next_graph())

    def run(on_step: Callable[[int], object] | None) -> Any:
        return denoiser.run(embeddings, noise, on_step)

    return Loop(run, forward)
