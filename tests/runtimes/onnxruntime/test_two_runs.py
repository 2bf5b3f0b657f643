"""Two runs at once on one ONNX pipeline: each ends as it would alone, or is refused."""

import threading
from collections.abc import Callable

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from budc.runtimes.onnxruntime.pipeline import OnnxPipeline
from budc.runtimes.testing import STEPS
from budc.schema.errors import RefusedRun

FIRST, SECOND = "a red circle", "a big blue box drifts up"
SECONDS = 60


def test_a_run_in_another_thread_waits(pipe: OnnxPipeline) -> None:
    first, second = pipe.generate(FIRST, seed=1).latents, pipe.generate(SECOND, seed=2).latents
    order: list[str] = []
    results: dict[str, object] = {}

    def run_second() -> None:
        results["second"] = pipe.generate(SECOND, seed=2, on_step=lambda step: order.append("second"))

    other = threading.Thread(target=run_second)

    def on_step(step: int) -> None:
        if step == 1:
            other.start()
            # Long enough for its prompt to be encoded and for its first step, if it did not wait.
            other.join(1.0)
        order.append("first")

    generation = pipe.generate(FIRST, seed=1, on_step=on_step)
    other.join(SECONDS)
    np.testing.assert_array_equal(generation.latents, first)
    np.testing.assert_array_equal(results["second"].latents, second)  # type: ignore[attr-defined]
    assert order == ["first"] * STEPS + ["second"] * STEPS
    # The wait is no part of the second run's time.
    assert results["second"].seconds < 1.0  # type: ignore[attr-defined]


def test_many_threads_share_a_pipeline_from_its_first_use(pipe: OnnxPipeline) -> None:
    results: dict[int, object] = {}
    start = threading.Barrier(4)

    def run(seed: int) -> None:
        start.wait(SECONDS)
        results[seed] = pipe.generate(FIRST, seed=seed).latents

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    for seed in range(4):
        np.testing.assert_array_equal(results[seed], pipe.generate(FIRST, seed=seed).latents)


@pytest.mark.parametrize(
    "begin",
    [
        lambda pipe: pipe.generate(SECOND, seed=2),
        lambda pipe: pipe.denoising_loop(2).run(pipe.encode([FIRST, SECOND]), np.zeros((2, 16, 2, 8, 8))),
    ],
    ids=["generate", "a loop of another batch"],
)
def test_a_run_inside_another_is_refused_and_leaves_it_alone(
    pipe: OnnxPipeline, begin: Callable[[OnnxPipeline], object]
) -> None:
    alone = pipe.generate(FIRST, seed=1).latents
    refusals: list[RefusedRun] = []

    def on_step(step: int) -> None:
        with pytest.raises(RefusedRun, match="another run of it was begun in the same thread") as caught:
            begin(pipe)
        refusals.append(caught.value)

    np.testing.assert_array_equal(pipe.generate(FIRST, seed=1, on_step=on_step).latents, alone)
    assert len(refusals) == STEPS
    assert "when the first run has ended" in refusals[0].remedy


def test_a_run_that_fails_lets_the_next_one_begin(pipe: OnnxPipeline) -> None:
    alone = pipe.generate(FIRST, seed=1).latents

    def on_step(step: int) -> None:
        raise KeyError(step)

    with pytest.raises(KeyError):
        pipe.generate(FIRST, seed=2, on_step=on_step)
    np.testing.assert_array_equal(pipe.generate(FIRST, seed=1).latents, alone)
