"""The plot of the comparison: what is emphasised, and labels that do not cover each other."""

from itertools import pairwise

import pytest
from quality_methods.plot import EMPHASISED, lines, spread


def row(method, budget, error, nfe=None):
    return {
        "model": "flux-nano",
        "method": method,
        "budget": budget,
        "error": dict.fromkeys(("geometricMean", "mean", "standardError", "p95"), error),
        **{name: {"mean": 1.0, "min": 1.0, "max": 1.0} for name in ("psnr", "ssim")},
        "nfe": dict.fromkeys(("mean", "min", "max"), nfe or budget),
        "searchForwards": 1,
        "searchForwardsUnshared": 1,
    }


def test_the_best_trained_plain_steps_are_a_line_of_their_own():
    rows = [
        row("steps-euler-trained", 6, 0.3),
        row("steps-unipc-trained", 6, 0.2),
        row("steps-euler-trained", 8, 0.1),
        row("joint", 6, 0.05),
        row("teacache", 6, 0.5, nfe=6.4),
        row("joint-mask-plain-velocity", 6, 9.0),
    ]
    drawn = {line.name: line.points for line in lines(rows)}
    assert drawn["best plain steps, trained"] == [(6, 0.2), (8, 0.1)]
    assert drawn["teacache"] == [(6.4, 0.5)]
    # Ablations are no methods.
    assert "joint-mask-plain-velocity" not in drawn
    assert [line.label for line in lines(rows) if line.name == "joint"] == ["joint"]
    assert set(EMPHASISED) >= {"joint", "joint-align", "best plain steps, trained"}


def test_labels_keep_their_order_and_a_gap():
    placed = spread([0.5, 0.51, 0.505, 0.99, 1.0], 0.05)
    assert sorted(range(5), key=placed.__getitem__) == [0, 2, 1, 3, 4]
    ordered = sorted(placed)
    gaps = [after - before for before, after in pairwise(ordered)]
    assert min(gaps) == pytest.approx(0.05)
    assert ordered[0] >= 0
    assert ordered[-1] <= 1
    assert spread([0.1, 0.9], 0.05) == [0.1, 0.9]
