"""The arithmetic of the compared methods, against cases that can be worked out by hand."""

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from quality_methods import few_steps
from quality_methods.report import report
from quality_methods.scoring import frame_ssim


def test_adams_bashforth_is_exact_on_linear_velocities_after_its_first_step():
    sigmas = torch.tensor([1.0, 0.7, 0.5, 0.1, 0.0], dtype=torch.float64)
    form = few_steps.adams_bashforth(sigmas, sigmas[:-1] * 1000)
    velocity = 2 + 3 * sigmas[:-1]
    states = form.velocity @ velocity
    exact = 2 * (sigmas - 1) + 1.5 * (sigmas**2 - 1)
    torch.testing.assert_close(states[1:] - states[1], exact[1:] - exact[1])
    assert states[1] == pytest.approx(float(-0.3 * velocity[0]))


def test_ssim_of_a_clip_with_itself_is_one_and_falls_with_noise():
    clip = torch.rand(1, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    assert frame_ssim(clip, clip) == pytest.approx(1)
    assert frame_ssim((clip + 0.3).clamp(0, 1), clip) < 0.99


ROOT = Path(__file__).parents[2]


def test_the_guide_is_written_from_the_results_that_stand_beside_it():
    results = json.loads((ROOT / "benchmarks" / "results" / "quality.json").read_text(encoding="utf-8"))
    assert report(results) == (ROOT / "docs" / "quality.md").read_text(encoding="utf-8")
