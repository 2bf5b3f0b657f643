import pytest

from budc.compiler.budget import parse_budget
from budc.schema.errors import BudgetImpossible


@pytest.mark.parametrize(
    ("requested", "steps", "nfe"),
    [
        ("10", 50, 10),
        ("50", 50, 50),
        ("1", 50, 1),
        ("2.8x", 50, 17),
        ("5x", 50, 10),
        ("1x", 28, 28),
        (" 2X ", 28, 14),
    ],
)
def test_a_budget_is_a_count_or_a_speed_up(requested, steps, nfe):
    assert parse_budget(requested, steps) == nfe


@pytest.mark.parametrize(
    "requested", ["0", "51", "-3", "ten", "", "2.8", "0.5x", "51x", "1e1", "nan", "10\n11", "x"]
)
def test_an_impossible_budget_is_refused_with_its_text(requested):
    with pytest.raises(BudgetImpossible) as caught:
        parse_budget(requested, 50)
    assert "--budget" in str(caught.value)
    assert caught.value.remedy


def test_every_denoiser_computes_its_first_step():
    assert parse_budget("2", 50, denoisers=2) == 2
    assert parse_budget("25x", 50, denoisers=2) == 2
    for requested in ("1", "26x"):
        with pytest.raises(BudgetImpossible, match="has 2 to 50, and each of 2 denoisers computes") as caught:
            parse_budget(requested, 50, denoisers=2)
        assert caught.value.remedy == "ask for 2 to 50"
