"""An ONNX export under a policy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from budc.runtimes.onnxruntime.denoising_loop import DenoisingLoop
from budc.runtimes.onnxruntime.io_binding import BoundSession, DeviceTensor
from budc.runtimes.onnxruntime.pipeline import choose_provider, load
from budc.runtimes.onnxruntime.sessions import DenoiserSessions
from budc.schema.artifact import read
from runtimes_compared.loop import SEED, Loop


def prepare(path: Path, export: Path, prompt: str, threads: int, provider: str) -> Loop:
    """Prepare the export under the policy."""
    pipe = load(read(path), export, provider=choose_provider(provider, threads), allow_unsigned=True)
    # The loop and the single forward are timed on the same session.
    sessions, embeddings = DenoiserSessions(export, pipe.manifest, pipe.provider), pipe.encode([prompt])
    loop, noise = DenoisingLoop(sessions, pipe.document), pipe.noise(SEED)
    samples, compute = len(next(iter(embeddings.values()))), pipe.manifest.graphs["compute"]
    tensors = {
        spec.name: DeviceTensor.of(
            pipe.provider,
            np.ones([samples if extent is None else extent for extent in spec.shape], spec.dtype),
        )
        for spec in (*compute.inputs, *compute.outputs)
    }
    inputs = {spec.name: tensors[spec.name] for spec in compute.inputs}
    outputs = {spec.name: tensors[spec.name] for spec in compute.outputs}
    forward = BoundSession(sessions.open("compute", samples), inputs, outputs, sessions.next_cuda_graph())

    def run(on_step: Callable[[int], object] | None) -> Any:
        return loop.run(embeddings, noise, on_step)

    return Loop(run, forward.run)
