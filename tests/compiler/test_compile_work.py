"""The passes that a compile is expected to have are those that it has."""

import pytest

torch = pytest.importorskip("torch")

from budc.compiler.compile import compile_artifacts  # noqa: E402
from budc.compiler.compile_work import compile_work, first_bracket, work_from  # noqa: E402
from budc.compiler.expected_passes import OF_MADE_UP  # noqa: E402
from budc.compiler.planning.dry_run import dry_run, given_to  # noqa: E402
from budc.compiler.policy_source import make_request  # noqa: E402
from budc.compiler.selection.effort import effort  # noqa: E402
from budc.compiler.selection.stages import stages_of  # noqa: E402
from budc.progress import reported  # noqa: E402


@pytest.fixture
def plan(eight_prompts):
    """Plan a compile."""

    def make(**flags):
        return make_request({}, eight_prompts | flags).resolve()

    return make


@pytest.mark.slow
@pytest.mark.parametrize("flags", [{}, {"search": "paper", "train": "sigmas"}], ids=["joint", "paper"])
def test_every_pass_is_expected_and_no_other(plan, short_search, flags):
    aligned = plan(budget="2", align=True, **flags)
    expected = compile_work(aligned)._left.keys()
    seen = set()
    with reported(lambda label, done, total: seen.add(label)):
        compile_artifacts(aligned)
    assert {label for label in seen if not label.startswith(tuple(expected))} == set()
    # The winner is fitted once more only where the alignment is not kept.
    assert {prefix for prefix in expected if not any(map(str.startswith, seen, [prefix] * len(seen)))} <= {
        "fit"
    }


@pytest.mark.parametrize("search", ["hillclimb", "anneal", "paper", "exhaustive", "known"])
def test_a_search_whose_length_depends_on_losses_is_counted_on_made_up_ones(plan, search):
    planned = plan(budget="2", search=search)
    counted = dry_run(given_to(planned.target.profile, 2, 6), search, effort("fast").share(2))
    stages = stages_of(search, "fast", 2, 8, arbitrates=False)
    of_made_up = OF_MADE_UP if search == "paper" else 1
    forwards = of_made_up * counted.expected * stages.screen * 2
    assert compile_work(planned)._left[f"search ({search})"] == [pytest.approx(forwards)]


@pytest.mark.parametrize("fit", [False, True])
def test_a_mask_of_the_users_is_one_candidate(plan, fit):
    planned = plan(mask="0,3", fit=fit)
    stages = stages_of(planned.search, "fast", 2, 8, arbitrates=False)
    assert compile_work(planned)._left[f"search ({planned.search})"] == [2 * stages.screen * 2]


def test_the_budgets_that_a_quality_is_likely_to_try_are_expected(plan):
    expected = compile_work(plan(quality="psnr>=20"))._left
    # Of six steps: two is in the middle, and thought to be the answer; then one is tried.
    assert len(expected["search (joint)"]) == len(expected["quality of"]) == len(expected["judges' frames"])
    assert expected["calibration full"]


def test_a_time_is_settled_before_the_reference_run(plan):
    planned = plan(within="2s")
    expected = compile_work(planned)._left
    # Each loop once and three times more, of two branches.
    assert all(forwards % 8 == 0 for forwards in expected["time of"])
    known = first_bracket(planned)
    while (nfe := known.next) is not None:
        known.tell(nfe, nfe - 3.5, kept=nfe > 3)
    assert work_from(planned, known) == compile_work(plan(budget="3"))._left | {"time of": []}
