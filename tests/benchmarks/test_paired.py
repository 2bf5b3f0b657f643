"""Paired comparisons: the ratios and their errors, worked out by hand, and the verdict."""

import math

import numpy as np
import pytest
from quality_methods.paired import by_mean, by_percentile, section


def row(method, errors, seed=0):
    return {
        "model": "toy",
        "budget": 6,
        "method": method,
        "seed": seed,
        "samples": {"error": [float(error) for error in errors]},
    }


def test_the_mean_is_that_of_the_pairs_and_seeds_count_as_one():
    """Of log 2 and log 8 the mean is log 4, and its error log 2: each is that far from it."""
    own = np.log([[2.0, 8.0], [2.0, 8.0]])
    pair = by_mean("uniform", own, np.log([[1.0, 1.0]]))
    assert pair.log_ratio == pytest.approx(math.log(4))
    assert pair.error == pytest.approx(math.log(2))
    assert pair.in_errors == pytest.approx(2)


def test_the_percentile_is_the_nearest_rank_of_all_prompts():
    errors = np.arange(1.0, 41.0)
    pair = by_percentile("uniform", np.log(errors)[None], np.log(errors / 3)[None])
    assert pair.log_ratio == pytest.approx(math.log(3))
    assert pair.error == pytest.approx(0, abs=1e-9), "every draw of the prompts has the same ratio"
    alone = by_percentile("uniform", np.log(errors)[None], np.zeros((1, 40)))
    assert alone.log_ratio == pytest.approx(math.log(38))
    assert 0.02 < alone.error < 0.2


def test_the_closest_method_is_named_and_one_that_is_ahead_is_said_to_be():
    errors = np.geomspace(1, 2, 20) * np.tile([1, 1.2], 10)
    budc = row("joint-align", errors)
    level = row("steps-unipc-trained", errors[::-1])
    far = row("uniform", errors * np.geomspace(10, 20, 20))
    text = section([budc, level, far])
    (line,) = (line for line in text.splitlines() if line.startswith("| `toy`"))
    assert line.startswith("| `toy` | 6 | `--align` | 1.00 (")
    assert line.count("UniPC, fewer steps, trained") == 2
    assert "No other method is ahead in any of these 1 rows" in text
    ahead = row("teacache", errors / np.geomspace(2, 3, 20))
    assert "TeaCache." in section([budc, level, ahead]).splitlines()[-1]


def test_where_nothing_can_be_paired_there_is_no_section():
    assert section([row("uniform", [1, 2])]) == ""
    assert section([row("joint-align", [1]), row("uniform", [2])]) == ""
