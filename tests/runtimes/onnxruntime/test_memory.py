"""Bound sessions and slots of the ONNX pipeline: none more than a policy needs."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from onnx_pipelines import PROMPTS, opened

from budc.runtimes.onnxruntime.denoising_loop import DenoisingLoop
from budc.runtimes.onnxruntime.noise import seeded_noise
from budc.runtimes.onnxruntime.pipeline import (
    OnnxPipeline,
)
from budc.runtimes.onnxruntime.provider import Provider
from budc.runtimes.onnxruntime.sessions import DenoiserSessions
from budc.runtimes.testing import GOLDEN, STEPS
from budc.schema.policy import PolicyDocument


class Capturing(Provider):
    """The CPU, with its bound sessions numbered as for CUDA graphs."""

    @property
    def captures(self) -> bool:
        return True


@pytest.mark.parametrize("name", list(GOLDEN))
def test_every_run_uses_the_same_bound_sessions(
    name: str, document: PolicyDocument, exported: Path, pipe: OnnxPipeline
) -> None:
    sessions = DenoiserSessions(exported, pipe.manifest, Capturing("cpu", 1))
    loop = DenoisingLoop(sessions, GOLDEN[name].document(document))
    embeddings, noise = pipe.encode(PROMPTS[:1]), seeded_noise((1, 16, 2, 8, 8), 0)
    expected = loop.run(embeddings, noise)
    forwards, updates = dict(loop._forwards.bound), dict(loop._updates.bound)
    for stop in (2, STEPS):
        latents = loop.run(embeddings, noise, lambda step, stop=stop: step != stop)
    np.testing.assert_array_equal(latents, expected)
    assert (loop._forwards.bound, loop._updates.bound) == (forwards, updates)
    numbers = [bound.cuda_graph for bound in (*forwards.values(), *updates.values())]
    assert sorted(numbers) == list(range(1, sessions.cuda_graphs + 1))
    assert len(numbers) <= 2 * STEPS + 2
    # Two updates, one for each state; nothing else is bound twice.
    assert len(updates) == 2


@pytest.mark.parametrize(
    ("name", "slots"), [("plain reuse", 1), ("two terms", 2), ("three terms", 3), ("every step", 1)]
)
def test_no_more_residuals_are_kept_than_the_policy_needs(
    name: str, slots: int, document: PolicyDocument, exported: Path
) -> None:
    loop = opened(GOLDEN[name].document(document), exported).denoising_loop(1)
    assert [len(group.residuals) for group in loop._buffers.groups] == [slots]
