import pytest

from budc.cli.report.charts import power, quantiles, series_of, spread_ticks
from budc.cli.report.comparisons import Comparison, Row


def rows(*pairs):
    comparison = Comparison("", "")
    for index, (kind, nfe) in enumerate(pairs):
        comparison.add(Row(kind, f"{kind}-{index}", nfe, {}))
    return comparison


def test_policies_of_different_budgets_are_one_series():
    compared = rows(("policy", 8), ("policy", 6), ("full", 50), ("uniform", 6), ("fewer-steps", 6))
    assert [(item.title, [row.nfe for row in item.rows]) for item in series_of(compared)] == [
        ("policies", [6, 8]),
        ("fewer-steps-4", [6]),
        ("uniform-3", [6]),
    ]


def test_policies_of_the_same_budget_are_told_apart():
    compared = rows(("policy", 6), ("policy", 6))
    assert [item.title for item in series_of(compared)] == ["policy-0", "policy-1"]


def test_a_baseline_of_several_policies_counts_once():
    compared = rows(("policy", 6), ("policy", 6), ("uniform", 6), ("uniform", 6), ("uniform", 8))
    assert [row.nfe for row in compared.rows if row.kind == "uniform"] == [6, 8]


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([50, 6, 6, 8], [6, 8, 50]),
        ([10], [10]),
        ([10, 10.5], [10, 10.5]),
        ([20, 21, 22, 24, 25], [20, 25]),
        (range(46, 51), [46, 50]),
    ],
)
def test_ticks_have_room(values, ticks):
    assert spread_ticks(values) == ticks


def test_quantiles_keep_both_ends():
    values = [float(value) for value in range(1000)]
    assert quantiles(values, 5) == [0, 250, 500, 749, 999]
    assert quantiles(values[:3], 5) == [0, 1, 2]


def test_powers_of_ten():
    assert [power(value) for value in (0.001, 1, 100, 0.002, 0)] == ["10⁻³", "10⁰", "10²", "", ""]
