"""Wrong arguments of a run are named before anything runs."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from onnx_pipelines import PROMPTS

from budc.runtimes.onnxruntime.pipeline import (
    OnnxPipeline,
)
from budc.schema.errors import (
    CalibrationMismatch,
    RefusedRun,
    UsageError,
)


def test_what_does_not_fit_is_refused(pipe: OnnxPipeline) -> None:
    with pytest.raises(RefusedRun, match=r"noise: \(2, 16, 2, 8, 8\)"):
        pipe.denoising_loop(1).run(pipe.encode(PROMPTS[:1]), np.zeros((2, 16, 2, 8, 8), np.float32))
    with pytest.raises(RefusedRun, match=r"encoder_hidden_states: \(4, 32, 96\)"):
        pipe.denoising_loop(1).run(pipe.encode(PROMPTS), pipe.noise(0))
    with pytest.raises(RefusedRun, match="encoder_hidden_states: nothing"):
        pipe.denoising_loop(1).run({}, pipe.noise(0))


def test_other_steps_are_refused_before_anything_runs(pipe: OnnxPipeline) -> None:
    with pytest.raises(CalibrationMismatch, match="steps: the policy has 6, this run asks for 50"):
        pipe.generate(PROMPTS[0], steps=50)
    assert not pipe._loops
    assert pipe.generate(PROMPTS[0], steps=6).latents.shape == (1, 16, 2, 8, 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": PROMPTS}, "prompt: a list is no text"),
        ({"prompt": None}, "prompt: None is no text"),
        ({"prompt": b"a red circle"}, "prompt: a bytes is no text"),
        ({"prompt": "\ud800"}, "prompt: holds half of a surrogate pair"),
        ({"seed": None}, "seed: None is no whole number from 0"),
        ({"seed": -1}, "seed: -1 is no whole number from 0"),
        ({"seed": 1.5}, r"seed: 1\.5 is no whole number from 0"),
        ({"seed": 2**64}, "seed: 18446744073709551616 is no whole number from 0"),
        ({"on_step": 3}, "on_step: 3 is no function"),
    ],
    ids=repr,
)
def test_generate_names_a_wrong_argument(pipe: OnnxPipeline, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as refusal:
        pipe.generate(**{"prompt": PROMPTS[0]} | arguments)
    assert "pass" in refusal.value.remedy
    assert not pipe._loops


def test_every_step_of_a_run_names_a_wrong_argument(pipe: OnnxPipeline) -> None:
    wrong: dict[str, Callable[[], object]] = {
        "prompts: 'a red circle' is not a list": lambda: pipe.encode("a red circle"),
        "prompts: an empty sequence": lambda: pipe.encode([]),
        r"prompts\[1\]: None is no text": lambda: pipe.encode(["a", None]),  # type: ignore[list-item]
        "seed: None": lambda: pipe.noise(None),  # type: ignore[arg-type]
        "batch: 0 is no whole number from 1": lambda: pipe.denoising_loop(0),
    }
    for message, call in wrong.items():
        with pytest.raises(UsageError, match=message):
            call()
    np.testing.assert_array_equal(pipe.noise(np.int64(3)), pipe.noise(3))  # type: ignore[arg-type]
