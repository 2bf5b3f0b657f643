from dataclasses import dataclass
from pathlib import Path

import pytest

from budc.cli.output.recommendation import knee, recommendation


@dataclass
class Compiled:
    document: object
    path: Path


@pytest.mark.parametrize(
    ("evaluations", "quality", "index"),
    [
        ([4, 6, 8, 16], [20, 30, 33, 35], 2),
        ([4, 8, 12], [20, 30, 40], None),
        ([4, 8, 12], [20, 22, 40], None),
        ([4, 8, 12], [40, 30, 20], None),
        ([4, 8], [20, 30], None),
    ],
)
def test_the_knee_is_where_further_evaluations_gain_less(evaluations, quality, index):
    assert knee(evaluations, quality) == index


def test_a_sweep_ends_with_what_to_take(make_reported):
    # PSNR is 33 plus the evaluations.
    sweep = [Compiled(make_reported(nfe), Path(f"{nfe}.budc.json")) for nfe in (5, 2, 3)]
    assert recommendation(sweep).startswith("recommended: none")
    assert "three budgets or more" in recommendation(sweep[:2])
    sweep[2].document.quality.metrics[1] = sweep[0].document.quality.metrics[1]
    assert "recommended: 3 evaluations, 3.budc.json" in recommendation(sweep)
