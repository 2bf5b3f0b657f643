"""The arithmetic of the compared methods, against cases that can be worked out by hand."""

import json
import math
from pathlib import Path

import pytest
import torch
from quality_methods import changes, cost_page, effort_comparison, efforts, few_steps
from quality_methods.draws import drawn
from quality_methods.report import report, write_report
from quality_methods.scoring import frame_ssim

from budc.policies.samples import samples_of


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


def test_the_tables_of_costs_are_written_from_the_same_results():
    results = json.loads((ROOT / "benchmarks" / "results" / "quality.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "cost.md").read_text(encoding="utf-8")
    assert cost_page.written_into(page, results["rows"]) == page
    with pytest.raises(ValueError, match="do not stand in the page"):
        cost_page.written_into("# No tables\n", results["rows"])


def row(method, errors, forwards, seed=0, **more):
    """A row of one model and budget."""
    mean = math.exp(sum(map(math.log, errors)) / len(errors))
    return {
        **{"model": "tiny", "budget": 4, "method": method, "seed": seed},
        **{"error": {"geometricMean": mean}, "samples": {"error": errors}},
        **{"searchForwards": forwards, "searchForwardsUnshared": forwards},
        **more,
    }


def test_an_effort_is_compared_with_thorough_and_with_the_paper_s_seeds():
    rows = [
        row("joint", [0.1, 0.1], 400),
        row("joint-fast", [0.2, 0.1], 50),
        row("paper-one", [0.5, 0.5], 50, seed=0),
        row("paper-one", [0.5, 0.5], 200, seed=1),
    ]
    draws = efforts.draws_of(rows)
    text = effort_comparison.compared(draws)
    assert "| `tiny`, 4 | 1.41 (0.71 to 2.83) | 1.41 | 0.50 | not run |  |  |" in text
    assert (
        "- `fast` ends at 1.41 of `thorough`'s error, the geometric mean of 1 cells. 0 of 1 draws came"
        in text
    )
    assert "1.5 times or more. It spends 0.50 to 0.50" in text
    assert (
        "| `tiny`, 4 | 0.50, 100 | not run | 0.14, 50 | not run | 0.10, 400 | not run |"
        in efforts.measured(draws[0])
    )


def test_an_effort_is_compared_on_every_draw_that_both_were_run_on():
    rows = [
        row("joint", [0.1, 0.1], 400),
        row("joint-fast", [0.2, 0.2], 50),
        row("paper-one", [0.5, 0.5], 100),
        row("joint-fast", [0.1, 0.1], 200, draw=1),
        row("joint", [0.2, 0.2], 400, draw=1),
        row("joint", [0.3, 0.3], 400, draw=2),
    ]
    draws = efforts.draws_of(rows)
    text = effort_comparison.compared(draws)
    assert "| `tiny`, 4 | 1.00 (0.25 to 4.00) | 2.00, 0.50 | 1.00 |" in text
    assert "1 of 2 draws came to 1.5 times or more." in text
    # The table of errors is of the prompts that a compile takes.
    assert "0.20, 50" in efforts.measured(draws[0])


def test_a_cell_of_a_later_draw_alone_is_shown_and_seeds_are_one_figure():
    rows = [
        row("joint", [0.1, 0.1], 400, draw=1),
        row("joint-fast", [0.1, 0.2], 50, draw=1),
        row("joint-fast", [0.2, 0.1], 50, seed=1, draw=1),
    ]
    draws = efforts.draws_of(rows)
    assert len(draws) == 2
    assert "| `tiny`, 4 | 1.41 (1.41 to 1.41) | 1.41 |  |" in effort_comparison.compared(draws)


def test_all_efforts_are_compared_with_the_search_before_on_the_draws_of_both():
    rows = [
        row("before", [0.1, 0.1], 0),
        row("joint", [0.1, 0.1], 400),
        row("joint-fast", [0.2, 0.2], 50),
        row("before", [0.4, 0.4], 0, draw=1),
        row("joint-fast", [0.4, 0.4], 50, draw=1),
        row("joint", [0.1, 0.1], 400, draw=2),
    ]
    text = effort_comparison.compared_with_before(efforts.draws_of(rows))
    assert "| `tiny`, 4 | 1.41 (0.71 to 2.83) | not run | 1.00 (1.00 to 1.00) |" in text
    assert "- `fast` ends at 1.41 of the error before, the geometric mean of 1 cells." in text
    assert "The aim of 1.25 at most is met in 0 of them, and within two standard errors in 1." in text
    assert "- `thorough` ends at 1.00 of the error before" in text
    assert "balanced" not in text.partition("\n\n")[2]


def test_the_page_of_quality_is_of_the_first_draw(tmp_path):
    results = json.loads((ROOT / "benchmarks" / "results" / "quality.json").read_text(encoding="utf-8"))
    later = [{**entry, "draw": 1} for entry in results["rows"] if entry["method"] == "joint"]
    write_report({**results, "rows": results["rows"] + later}, tmp_path)
    assert (tmp_path / "quality.md").read_text(encoding="utf-8") == report(results)


def test_no_two_draws_share_a_prompt_and_its_noise():
    prompts = samples_of((f"prompt {index}" for index in range(8)), "", 100)
    taken = [drawn(prompts, 3, draw) for draw in range(4)]
    assert taken[0] == prompts[:3]
    assert [sample.prompt for sample in taken[2]] == ["prompt 6", "prompt 7", "prompt 0"]
    assert len({sample.seed for draw in taken for sample in draw}) == 12


def test_what_changed_stands_beside_what_was_before_and_what_a_transfer_reaches():
    earlier = {"model": "tiny", "budget": 4, "method": "joint", "error": 0.3, "forwards": 700}
    moved = {"to": "tiny", "budget": 4, "error": {"fitted": 0.2, "nearby": 0.1}}
    moved["forwards"] = {"fitted": 90, "nearby": 1200}
    table = changes.changes(efforts.grouped([row("joint", [0.1, 0.1], 400)]), [earlier], [moved])
    figures = "0.30, 700 | 0.10, 400 | not run | not run | 0.20, 90 | 0.10, 1,200"
    assert table.splitlines()[-1] == f"| `tiny`, 4 | {figures} |"
