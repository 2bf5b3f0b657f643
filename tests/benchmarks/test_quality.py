import json
import statistics
from pathlib import Path

import pytest
import quality as benchmark
from click.testing import CliRunner, Result
from quality_methods.summary import costs

ROOT = Path(__file__).parents[2]


def quality(*arguments: str) -> Result:
    """Call benchmarks/quality.py; its switches for the libraries' messages would outlive the call."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(benchmark, "quiet_libraries", lambda: None)
        return CliRunner().invoke(benchmark.main, arguments)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("quality")


@pytest.fixture(scope="module")
def results(work):
    """Two methods at one budget on two prompts."""
    target = work / "results.json"
    done = quality(
        *("--models", "wan2.1-nano", "--budgets", "6", "--methods", "uniform,teacache,steps-unipc"),
        *("--calibration", "2", "--held-out", "2", "--work", str(work), "--json", str(target)),
    )
    assert done.exit_code == 0, done.stderr
    return json.loads(target.read_text())


@pytest.mark.slow
def test_rows_hold_errors_and_frames_against_the_full_run(results):
    assert [row["method"] for row in results["rows"]] == ["uniform", "teacache", "steps-unipc"]
    for row in results["rows"]:
        error = row["error"]
        assert 0 < error["geometricMean"] <= error["mean"] <= error["max"]
        assert error["max"] == pytest.approx(max(row["samples"]["error"]), rel=1e-5)
        assert 10 < row["psnr"]["min"] <= row["psnr"]["mean"] < 60
        assert 0.2 < row["ssim"]["mean"] < 1


@pytest.mark.slow
def test_fixed_methods_spend_exactly_the_budget_and_nothing_on_search(results):
    for row in (results["rows"][0], results["rows"][2]):
        assert row["nfe"] == {"mean": 6, "std": 0, "min": 6, "max": 6}
        assert row["searchForwards"] == 0


@pytest.mark.slow
def test_threshold_methods_count_what_they_calibrated_with(results):
    teacache = results["rows"][1]
    assert teacache["searchForwards"] > 2 * 2 * 50
    assert len(teacache["samples"]["nfe"]) == 2


@pytest.mark.slow
def test_cells_that_stand_are_taken_and_those_that_do_not_are_named(results, work):
    rows = work / "wan2.1-nano" / "rows-2-2"
    marked = rows / "uniform-6-0.json"
    marked.write_text(json.dumps({**json.loads(marked.read_text()), "marked": True}))
    target = work / "again.json"
    done = quality(
        *("--models", "wan2.1-nano", "--budgets", "6", "--methods", "uniform,magcache", "--finished"),
        *("--calibration", "2", "--held-out", "2", "--work", str(work), "--json", str(target)),
    )
    assert done.exit_code == 0, done.stderr
    again = json.loads(target.read_text())
    assert [row["marked"] for row in again["rows"]] == [True]
    assert again["notRun"] == [{"model": "wan2.1-nano", "budget": 6, "method": "magcache", "seed": 0}]


@pytest.mark.slow
def test_another_draw_is_measured_on_other_prompts_and_named_in_its_rows(results, work):
    target = work / "draws.json"
    settings = (
        *("--models", "wan2.1-nano", "--budgets", "6", "--draws", "0,1,40"),
        *("--calibration", "2", "--held-out", "2", "--work", str(work), "--json", str(target)),
    )
    assert quality("--methods", "uniform", *settings).exit_code == 0
    rows = json.loads(target.read_text())["rows"]
    assert rows[0] == results["rows"][0] | {"marked": True}
    assert [row.get("draw") for row in rows] == [None, 1, 40]
    # The 40th draw of two begins beyond the 64 prompts of the calibration file, with new noise.
    assert len({row["samples"]["error"][0] for row in rows}) == 3
    assert quality("--methods", "uniform,magcache", *settings, "--finished").exit_code == 0
    finished = json.loads(target.read_text())
    assert finished["rows"] == rows
    assert [cell.get("draw") for cell in finished["notRun"]] == [None, 1, 40]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_methods_that_are_written_for_another_pipeline_are_skipped_by_name(tmp_path):
    target = tmp_path / "flux.json"
    done = quality(
        *("--models", "flux-nano", "--budgets", "6", "--methods", "uniform,steps-dpm++,teacache,cache-dit"),
        *("--calibration", "2", "--held-out", "2", "--work", str(tmp_path), "--json", str(target)),
    )
    assert done.exit_code == 0, done.stderr
    results = json.loads(target.read_text())
    assert [row["method"] for row in results["rows"]] == ["uniform", "steps-dpm++", "teacache"]
    assert results["notRun"] == []
    assert "flux-nano: cache-dit is skipped, it is written for WanPipeline" in done.stderr
    assert all(0 < row["error"]["geometricMean"] < 1 for row in results["rows"])


@pytest.mark.slow
def test_report_is_a_function_of_the_results(results, tmp_path):
    source = tmp_path / "results.json"
    absent = {"model": "wan2.1-nano", "budget": 6, "method": "magcache", "seed": 0}
    source.write_text(json.dumps({**results, "notRun": [absent]}))
    assert quality("--report", str(source), "--docs", str(tmp_path)).exit_code == 0
    text = (tmp_path / "quality.md").read_text()
    best = min(results["rows"], key=lambda row: row["error"]["geometricMean"])
    first = next(line for line in text.splitlines() if line.startswith("|") and "e-" in line)
    assert f"{best['error']['geometricMean']:.2e}" in first
    assert "| MagCache | not run |" in text
    assert (tmp_path / "images" / "quality.png").read_bytes().startswith(b"\x89PNG")


def test_an_unknown_method_is_refused_by_name():
    done = quality("--methods", "unifrom")
    assert done.exit_code == 2
    assert "unifrom" in done.stderr
    assert "uniform" in done.stderr


def test_the_tables_of_the_readme_and_the_guide_are_what_the_results_say():
    rows = json.loads((ROOT / "benchmarks" / "results" / "quality.json").read_text())["rows"]
    methods = {
        "**budc**, `joint --align`": ["joint-align"],
        "**budc**, `joint` (the default)": ["joint"],
        "best of the plain solvers": [
            f"steps-{solver}-trained" for solver in ("euler", "unipc", "dpm++", "ab2")
        ],
        "the paper's search, on all prompts": ["paper"],
        "TaylorSeer, order 1": ["taylorseer-1"],
        "TeaCache": ["teacache", "teacache-embedding"],
        "uniform mask": ["uniform"],
    }

    def measured(model, budget, method):
        seeds = [
            row for row in rows if (row["model"], row["budget"], row["method"]) == (model, budget, method)
        ]
        return statistics.fmean(row["error"]["geometricMean"] for row in seeds) if seeds else float("inf")

    own = {"wan2.1-nano": "steps-unipc", "flux-nano": "steps-euler", "wan2.1-mini": "steps-unipc"}
    readme, guide = ((ROOT / path).read_text() for path in ("README.md", "docs/quality.md"))
    tables = {("wan2.1-nano", "flux-nano"): readme.split("| | `")[1]}
    tables |= {(model,): guide.split(f"| `{model}` | NFE 6")[1].split("\n\n")[0] for model in own}
    for models, text in tables.items():
        cells = [(model, budget) for model in models for budget in (6, 8, 10, 14)]
        wanted = {
            label: [min(measured(*cell, method) for method in names) for cell in cells]
            for label, names in methods.items()
        }
        wanted["the model's own solver"] = [measured(model, budget, own[model]) for model, budget in cells]
        for label, values in wanted.items():
            (line, *_) = [line for line in text.splitlines() if line.startswith(f"| {label}")]
            assert [float(cell) for cell in line.strip("| ").split("|")[1:]] == [
                float(f"{value:.2g}") for value in values
            ]


def test_what_the_readme_says_of_the_trained_solvers_and_of_costs_is_what_the_results_say():
    rows = json.loads((ROOT / "benchmarks" / "results" / "quality.json").read_text())["rows"]
    cells = {}
    for row in rows:
        cells.setdefault((row["model"], row["budget"]), {}).setdefault(row["method"], []).append(row)

    def error(cell, method):
        return statistics.fmean(row["error"]["geometricMean"] for row in cell[method])

    def cost(cell, method, paper="paper"):
        spent = statistics.fmean(row["searchForwards"] for row in cell[method])
        return spent / statistics.fmean(row["searchForwardsUnshared"] for row in cell[paper])

    text = " ".join((ROOT / "README.md").read_text().split())
    guide = (ROOT / "docs" / "quality.md").read_text()
    ahead = {
        method: sum(
            min(error(cell, name) for name in cell if name.endswith("-trained")) < error(cell, method)
            for cell in cells.values()
        )
        for method in ("joint", "joint-align")
    }
    counts = f"in {ahead['joint']} of {len(cells)} cells, and of `joint --align` in {ahead['joint-align']}."
    assert f"is ahead of `joint` {counts}" in guide
    joint, align = (("none", "one", "two", "three", "four")[number] for number in ahead.values())
    assert (
        f"The trained solver is ahead of `joint` in {joint} of these twelve cells, and of `--align` in {align}"
        in text
    )
    for method, words in (
        (
            "joint",
            "`joint` spends {:.2g} to {:.2g} times the forwards of the paper's search on the same 32 prompts",
        ),
        ("joint-align", "`joint --align` {:.2g} to {:.2g} times."),
    ):
        spent = [cost(cell, method) for cell in cells.values()]
        assert words.format(min(spent), max(spent)) in text
    one = [cell for cell in cells.values() if "paper-one" in cell]
    spent = [cost(cell, "joint", "paper-one") for cell in one]
    ends = [error(cell, "joint") / error(cell, "paper-one") for cell in one]
    assert (
        f"`joint` spends {min(spent):.2g} to {max(spent):.2g} times the forwards of that and ends at "
        f"{min(ends):.2g} to {max(ends):.2g} of its error"
    ) in text
    assert len(one) == len(cells) == 12
    fewest = [
        error(cell, "joint") / min(error(cell, name) for name in cell if name.endswith("-trained"))
        for (_, budget), cell in cells.items()
        if budget == 6
    ]
    words = (
        f"at 6 of 50 steps `joint` ends at {min(fewest):.2f} to {max(fewest):.2f} of the error of the best trained "
        "solver of six steps"
    )
    for page in ("README.md", "docs/is-it-for-me.md"):
        assert words in " ".join((ROOT / page).read_text().split())


def test_costs_are_compared_with_the_papers_search_on_all_prompts_and_on_one():
    def figures(forwards, unshared, error):
        return {"forwards": forwards, "unshared": unshared, "geometricMean": error}

    cell = {
        "joint": figures(50, 60, 0.1),
        "joint-align": figures(100, 110, 0.05),
        "paper": figures(400, 1000, 1.0),
        "paper-one": figures(20, 25, 2.0),
    }
    other = {name: value for name, value in cell.items() if name != "paper-one"}
    on_all, on_one = costs({("a", 6): cell, ("a", 8): other}, 32)
    assert "the same 32 prompts (2 cells), `joint` spends 0.05 times" in on_all
    assert "on one prompt, as its authors ran it (1 cell), `joint` spends 2 times" in on_one
    assert "at 0.05 of the error, `joint --align` 4 times" in on_one
    assert costs({("a", 8): other}, 32) == [on_all.replace("2 cells", "1 cell")]


def test_what_the_guide_says_of_the_coefficients_is_what_the_results_say():
    rows = json.loads((ROOT / "benchmarks" / "results" / "quality.json").read_text())["rows"]
    errors = {
        row["method"]: row["error"]["geometricMean"]
        for row in rows
        if (row["model"], row["budget"]) == ("wan2.1-nano", 10)
    }
    plain, gram, tracked = (
        f"{errors[f'joint-mask-{rule}-velocity']:.2g}" for rule in ("plain", "gram", "tracked")
    )
    guide = (ROOT / "docs" / "quality.md").read_text().split("## wan2.1-nano, NFE 10")[1]
    assert (
        f"end at {plain}, with coefficients from the full run at {gram}, and with coefficients fitted along "
        f"the policy's own path at {tracked}."
    ) in guide.split("## ")[0]
