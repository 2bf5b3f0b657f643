"""The step machine, against tables and against a plain reading of the definition."""

import itertools
import subprocess
import sys
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budc.runtimes.sampling.step_plan import plan_branch
from budc.runtimes.sampling.steps import Compute, Reuse, StepMachine
from budc.schema.errors import CalibrationMismatch, RefusedRun, SemanticsViolation
from budc.schema.policy import BranchPolicy, Policy

MASK = [True, True, False, False, True, False]
ROWS: list[list[float]] = [[], [], [2.0, -1.0], [1.0], [], [1.0, 0.5, 0.25]]


def total(coefficients: Sequence[float], cached: Sequence[float]) -> float:
    return sum(c * r for c, r in zip(coefficients, cached, strict=True))


Rows = Sequence[Sequence[float]]


def machine(*branches: tuple[Sequence[str], Rows], first_steps: Sequence[int] = ()) -> StepMachine[float]:
    policies = [BranchPolicy.of(names, rows) for names, rows in branches]
    return StepMachine(Policy(payload="trunk-residual", branches=policies), total, first_steps)


def drive(steps: StepMachine[float], branch: str, count: int, offset: float = 0.0) -> list[float | None]:
    """Run a branch; what is computed at step k is k + offset. None where computed."""
    seen: list[float | None] = []
    for k in range(count):
        action = steps.step(branch, k)
        if isinstance(action, Compute):
            steps.record(branch, k + offset)
            seen.append(None)
        else:
            seen.append(action.cached)
    return seen


@pytest.mark.parametrize(
    ("mask", "rows", "keeps"),
    [
        ("C", [[]], [0]),
        ("CCC", [[], [], []], [0, 0, 0]),
        ("CRR", [[], [1.0], [1.0]], [1, 1, 0]),
        ("CCR", [[], [], [1.0]], [0, 1, 0]),
        ("CCR", [[], [], [1.0, 1.0]], [1, 2, 0]),
        ("CCR", [[], [], [1.0, 0.0]], [0, 1, 0]),
        ("CCRRCR", ROWS, [1, 2, 2, 2, 3, 0]),
        ("CRCCR", [[], [1.0], [], [], [1.0, 1.0]], [1, 0, 1, 2, 0]),
    ],
)
def test_keeps_only_what_later_steps_need(mask: str, rows: list[list[float]], keeps: list[int]) -> None:
    plan = plan_branch([letter == "C" for letter in mask], rows)
    assert [step.keep for step in plan] == keeps


def test_reuses_newest_first() -> None:
    steps = machine((["cond"], ROWS))
    assert drive(steps, "cond", 6) == [None, None, 2.0 * 1 - 1.0 * 0, 1.0, None, 4 + 0.5 * 1 + 0.25 * 0]
    assert steps.held == 0


def test_zero_coefficient_alone_adds_nothing() -> None:
    assert drive(machine((["cond"], [[], [0.0]])), "cond", 2) == [None, 0.0]


@st.composite
def policies(draw: st.DrawFn) -> tuple[list[bool], list[list[float]]]:
    mask = [True, *draw(st.lists(st.booleans(), max_size=12))]
    rows: list[list[float]] = []
    for step, compute in enumerate(mask):
        terms = 0 if compute else draw(st.integers(1, min(3, sum(mask[:step]))))
        rows.append(draw(st.lists(st.sampled_from([0.0, 1.0, -2.0, 0.5]), min_size=terms, max_size=terms)))
    return mask, rows


@pytest.mark.parametrize(
    ("mask", "rows", "first_steps", "keeps"),
    [
        ("CCR", [[], [], [1.0]], [1], [0, 1, 0]),
        ("CRCCRR", [[], [1.0], [], [], [1.0, 1.0], [1.0]], [2], [1, 0, 1, 2, 1, 0]),
        ("CRCRCR", [[], [1.0], [], [1.0], [], [1.0]], [2, 4], [1, 0, 1, 0, 1, 0]),
        ("CRR", [[], [1.0], [1.0]], [7], [1, 1, 0]),
    ],
)
def test_nothing_cached_is_kept_where_another_denoiser_takes_over(
    mask: str, rows: list[list[float]], first_steps: list[int], keeps: list[int]
) -> None:
    plan = plan_branch([letter == "C" for letter in mask], rows, first_steps)
    assert [step.keep for step in plan] == keeps


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([[], [], [1.0], [1.0]], "step 2 combines 1 computed steps, but its denoiser has 0 before it"),
        ([[], [], [], [1.0, -1.0]], "step 3 combines 2 computed steps, but its denoiser has 1 before it"),
    ],
)
def test_nothing_cached_crosses_denoisers(rows: list[list[float]], said: str) -> None:
    mask = [not row for row in rows]
    plan_branch(mask, rows)
    with pytest.raises(SemanticsViolation, match=said):
        plan_branch(mask, rows, [2])


@st.composite
def shared_policies(draw: st.DrawFn) -> tuple[list[bool], list[list[float]], list[int]]:
    """Policies of one to three denoisers, one after the other."""
    parts = [draw(policies()) for _ in range(draw(st.integers(1, 3)))]
    mask = [compute for part, _ in parts for compute in part]
    rows = [row for _, part in parts for row in part]
    return mask, rows, list(itertools.accumulate(len(part) for part, _ in parts))[:-1]


@given(shared_policies())
def test_denoisers_run_as_if_each_were_alone(policy: tuple[list[bool], list[list[float]], list[int]]) -> None:
    mask, rows, first_steps = policy
    together = drive(machine((["cond"], rows), first_steps=first_steps), "cond", len(mask))
    apart: list[float | None] = []
    for first, end in itertools.pairwise([0, *first_steps, len(mask)]):
        one = machine((["cond"], rows[first:end]))
        apart += drive(one, "cond", end - first, offset=first)
    assert together == apart


@given(policies())
def test_equals_the_definition_and_holds_no_more(policy: tuple[list[bool], list[list[float]]]) -> None:
    mask, rows = policy
    steps = machine((["cond"], rows))
    computed: list[float] = []
    for k, compute in enumerate(mask):
        action = steps.step("cond", k)
        if compute:
            assert action == Compute()
            computed.insert(0, 10.0 + k)
            steps.record("cond", 10.0 + k)
        else:
            assert action == Reuse(sum(c * r for c, r in zip(rows[k], computed, strict=False)))
        later = [len(rows[j]) - sum(mask[k + 1 : j]) for j in range(k + 1, len(mask)) if not mask[j]]
        assert steps.held <= max([0, *later])


def test_branches_are_apart() -> None:
    steps = machine((["cond", "uncond"], ROWS))
    both = []
    for k in range(6):
        for name, offset in (("cond", 0.0), ("uncond", 100.0)):
            action = steps.step(name, k)
            if isinstance(action, Compute):
                steps.record(name, k + offset)
            else:
                both.append(action.cached)
    assert both == [2.0, 102.0, 1.0, 101.0, 4.5, 179.5]


def test_branches_may_have_masks_of_their_own() -> None:
    steps = machine((["cond"], [[], []]), (["uncond"], [[], [1.0]]))
    assert drive(steps, "cond", 2) == [None, None]
    assert drive(steps, "uncond", 2, offset=7.0) == [None, 7.0]


def test_batched_branches_share_one_mask() -> None:
    assert drive(machine((["cond", "uncond"], ROWS)), "cond_uncond", 6)[2] == 2.0


def test_batched_branches_with_separate_masks_are_refused() -> None:
    steps = machine((["cond"], [[], []]), (["uncond"], [[], [1.0]]))
    with pytest.raises(CalibrationMismatch, match="separate masks for cond, uncond"):
        steps.step("cond_uncond", 0)


def test_branches_at_a_step_are_those_that_were_asked_for() -> None:
    steps = machine((["cond", "uncond"], ROWS))
    steps.step("uncond", 0)
    assert steps.branches_at(0) == ("uncond",)
    steps.step("cond", 0)
    assert steps.branches_at(0) == ("cond", "uncond")
    assert steps.branches_at(1) == ()
    steps.begin_run()
    steps.step("cond_uncond", 0)
    assert steps.branches_at(0) == ("cond", "uncond")


def test_unknown_branch_is_refused() -> None:
    with pytest.raises(CalibrationMismatch, match="the policy has cond, this run asks for uncond"):
        machine((["cond"], ROWS)).step("uncond", 0)


def test_batched_name_of_a_half_known_pair_is_refused() -> None:
    with pytest.raises(CalibrationMismatch, match="this run asks for cond_uncond"):
        machine((["cond"], ROWS)).step("cond_uncond", 0)


def test_step_zero_starts_anew_after_a_run_cut_short() -> None:
    steps = machine((["cond"], ROWS))
    drive(steps, "cond", 3, offset=1000.0)
    steps.step("cond", 3)
    assert drive(steps, "cond", 6) == drive(machine((["cond"], ROWS)), "cond", 6)


def test_begin_run_lets_go_of_everything() -> None:
    steps = machine((["cond"], ROWS))
    drive(steps, "cond", 2)
    assert steps.held == 2
    steps.begin_run()
    assert steps.held == 0
    with pytest.raises(RefusedRun, match="starts at step 2"):
        steps.step("cond", 2)


@pytest.mark.parametrize(("done", "following"), [(1, 2), (2, 1), (3, 5), (3, 2)])
def test_steps_that_jump_are_refused(done: int, following: int) -> None:
    steps = machine((["cond"], ROWS))
    drive(steps, "cond", done)
    with pytest.raises(RefusedRun, match=f"from step {done - 1} to step {following}"):
        steps.step("cond", following)


def test_reuse_before_compute_is_refused() -> None:
    with pytest.raises(RefusedRun, match="starts at step 2, but a policy starts at step 0"):
        machine((["cond"], ROWS)).step("cond", 2)


def test_more_steps_than_the_policy_has() -> None:
    steps = machine((["cond"], ROWS))
    drive(steps, "cond", 6)
    with pytest.raises(CalibrationMismatch, match="the policy has 6, this run asks for step 6"):
        steps.step("cond", 6)


def test_a_computed_step_must_be_recorded_once() -> None:
    steps = machine((["cond"], ROWS))
    steps.step("cond", 0)
    with pytest.raises(RefusedRun, match="step 0 was to be computed, but the transformer did not run"):
        steps.step("cond", 1)
    steps = machine((["cond"], ROWS))
    drive(steps, "cond", 1)
    with pytest.raises(RefusedRun, match="the transformer ran where no step was to be computed"):
        steps.record("cond", 1.0)


@pytest.mark.parametrize(
    ("mask", "rows"),
    [([True], [[], []]), ([True, False], [[], []]), ([True, False], [[], [1.0, 1.0]]), ([False], [[1.0]])],
)
def test_plan_refuses_what_cannot_run(mask: list[bool], rows: list[list[float]]) -> None:
    with pytest.raises(SemanticsViolation):
        plan_branch(mask, rows)


def test_masks_of_one_length_all_run() -> None:
    for tail in itertools.product([True, False], repeat=5):
        mask = [True, *tail]
        seen = drive(machine((["cond"], [[] if c else [1.0] for c in mask])), "cond", 6)
        newest = [max(j for j in range(k + 1) if mask[j]) for k in range(6)]
        assert seen == [None if mask[k] else float(newest[k]) for k in range(6)]


def test_imports_no_framework() -> None:
    code = (
        "import sys, budc.runtimes.sampling.steps, budc.runtimes.sampling.families, budc.runtimes.admission.settings; "
        "print({'torch', 'numpy', 'diffusers'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
