"""The passes that a compile is expected to have are those that it has."""

import pytest

torch = pytest.importorskip("torch")

from budc.compiler.compile import compile_artifacts  # noqa: E402
from budc.compiler.compile_work import compile_work  # noqa: E402
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
    # A refit is only where the alignment is not kept.
    assert {prefix for prefix in expected if not any(map(str.startswith, seen, [prefix] * len(seen)))} <= {
        "refit"
    }


@pytest.mark.parametrize("search", ["hillclimb", "anneal", "paper", "exhaustive", "known"])
def test_a_search_whose_length_depends_on_losses_is_counted_on_made_up_ones(plan, search):
    planned = plan(budget="2", search=search)
    counted = dry_run(given_to(planned.target.profile, 2, 6), search, effort("fast").rollouts, landscapes=3)
    stages = stages_of(search, "fast", 2, 8, arbitrates=False)
    assert compile_work(planned)._left[f"search ({search})"] == [counted.expected * stages.screen * 2]


@pytest.mark.parametrize("fit", [False, True])
def test_a_mask_of_the_users_is_one_candidate(plan, fit):
    planned = plan(mask="0,3", fit=fit)
    stages = stages_of(planned.search, "fast", 2, 8, arbitrates=False)
    assert compile_work(planned)._left[f"search ({planned.search})"] == [2 * stages.screen * 2]


def test_how_many_budgets_are_tried_is_not_known(plan):
    for flags in ({"quality": "psnr>=20"}, {"within": "2s"}):
        assert compile_work(plan(**flags)) is None
