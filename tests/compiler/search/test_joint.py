"""How many rollouts the default search takes, and where it looks."""

import itertools
import random

import pytest

from budc.compiler.search.joint import MOST_EVALUATIONS, joint, rollout_limit
from budc.compiler.search.payload_penalty import PENALTY


def rollouts(seen):
    """Return the rollouts that candidates take where common prefixes are shared, counted by their prefixes."""
    prefixes = {
        (candidate.payload, candidate.group, candidate.mask.compute_steps[: end + 1])
        for candidate in seen
        for end in range(candidate.mask.nfe)
    }
    return len(prefixes) / seen[0].mask.nfe


def test_few_evaluations_may_spend_less():
    limits = [rollout_limit(50, nfe) for nfe in range(4, 40)]
    assert limits == sorted(limits)
    assert (limits[0], limits[6], limits[-1]) == (20, 25, 28)


def test_few_masks_may_be_searched_through_in_part():
    limits = [rollout_limit(12, 5), rollout_limit(16, 6), rollout_limit(18, 7)]
    assert limits == pytest.approx([20 + 0.03 * 330, MOST_EVALUATIONS / 6, 20])


def test_steps_that_every_candidate_computes_leave_fewer_masks():
    """Where two denoisers share the run, the second one's first step is fixed, too."""
    assert rollout_limit(50, 3) == pytest.approx(2 * 0.03 * 1176)
    assert rollout_limit(50, 3, fixed=2) == pytest.approx(20 + 0.03 * 48)


@pytest.mark.parametrize("steps", [12, 16, 28, 50])
def test_a_small_budget_costs_no_more_than_ten_evaluations(steps):
    costs = [nfe * rollout_limit(steps, nfe) for nfe in range(2, 10)]
    assert max(costs) <= 10 * rollout_limit(steps, 10)


def test_a_share_of_the_rollouts_is_taken(run, space, costs):
    wanted = space(50, 8, errors={"velocity": costs(50, 2)}, rollouts=0.4)
    _, seen = run("joint", wanted, lambda candidate: random.Random(candidate.key).random())
    assert rollout_limit(50, 8, 0.4) == 8
    assert 8 <= rollouts(seen) < 10


@pytest.mark.parametrize("nfe", [4, 8, 14])
def test_the_search_ends_with_the_candidate_that_reaches_the_limit(nfe, run, space, costs):
    wanted = space(50, nfe, errors={"trunk-residual": costs(50, 1), "velocity": costs(50, 2)})
    _, seen = run("joint", wanted, lambda candidate: random.Random(candidate.key).random())
    assert rollout_limit(50, nfe) <= rollouts(seen) < rollout_limit(50, nfe) + 2


def test_the_seed_changes_nothing(run, space, costs):
    box = space(50, 8, errors={"velocity": costs(50, 2)})

    def rugged(candidate):
        return random.Random(candidate.key).random()

    assert run("joint", box, rugged, 0) == run("joint", box, rugged, 1)


@pytest.mark.parametrize(
    "target", [(0, 2, 3, 9, 17, 18, 30, 41, 48, 49), (0, 6, 11, 14, 20, 27, 33, 36, 42, 47)]
)
def test_it_closes_in_on_the_best_mask(target, run, space):
    """The distance of the evenly spread start is 8 to 40 steps, that of the winner at most 2."""

    def steps_off(candidate):
        return sum(abs(a - b) for a, b in zip(candidate.mask.compute_steps, target, strict=True))

    winner, seen = run("joint", space(50, 10), lambda candidate: 0.2 * steps_off(candidate))
    assert steps_off(seen[0]) >= 8
    assert steps_off(winner) <= 2


@pytest.mark.parametrize("batch", [1, 8])
def test_groups_take_turns_and_an_easy_one_misleads_nobody(batch, run, space):
    """The best start is scored on every group, so that what they lose is known of the same mask."""
    target, ease = (0, 2, 3, 9, 17, 18, 30, 41, 48, 49), (0.0, 4.0, -4.0)

    def loss(candidate):
        off = sum(abs(a - b) for a, b in zip(candidate.mask.compute_steps, target, strict=True))
        return 0.2 * off + ease[candidate.group]

    winner, seen = run("joint", space(50, 10, groups=3, batch=batch), loss)
    if batch == 1:
        assert sum(abs(a - b) for a, b in zip(winner.mask.compute_steps, target, strict=True)) <= 2
    turns = [candidate.group for candidate in seen]
    starts = turns.index(1)
    assert {*turns[:starts]} == {0}
    assert seen[starts].mask == seen[starts + 1].mask in [candidate.mask for candidate in seen[:starts]]
    assert turns[starts:] == [(1 + number) % 3 for number in range(len(turns) - starts)]
    assert rollout_limit(50, 10) <= rollouts(seen) < rollout_limit(50, 10) + 2
    assert len({(candidate.key, candidate.group) for candidate in seen}) == len(seen)


def test_every_mask_of_a_small_space_is_scored(run, space):
    _, seen = run("joint", space(8, 3), lambda candidate: random.Random(candidate.key).random())
    masks = {candidate.mask.compute_steps for candidate in seen if candidate.payload == "velocity"}
    assert masks == {(0, *rest) for rest in itertools.combinations(range(1, 8), 2)}


@pytest.mark.parametrize(("gain", "payload"), [(1.5, "trunk-residual"), (0.5, "velocity")])
def test_the_trunk_residual_is_taken_where_it_is_clearly_better(gain, payload, run, space):
    def loss(candidate):
        return sum(candidate.mask.compute_steps) - gain * PENALTY * (candidate.payload == "trunk-residual")

    _, seen = run("joint", space(50, 4, prompts=1), loss)
    assert {candidate.payload for candidate in seen[3:]} == {payload}
    # What is clear on one prompt is clear on more; what is not may be.
    _, seen = run("joint", space(50, 4, prompts=3), loss)
    assert {candidate.payload for candidate in seen[3:]} == {"trunk-residual"}


@pytest.mark.parametrize("better", ["velocity", "trunk-residual"])
def test_where_there_are_few_masks_the_best_start_does_not_settle_the_payload(better, run, space):
    """The payload that is ahead on every other mask is behind on those near the best one."""
    target = (0, 9, 11, 12, 13, 14)

    def loss(candidate):
        off = sum(abs(a - b) for a, b in zip(candidate.mask.compute_steps, target, strict=True))
        return 0.1 * off + (0 if candidate.payload != better else -2 if off < 4 else 0.5)

    winner, _ = run("joint", space(16, 6), loss)
    assert (winner.payload, winner.mask.compute_steps) == (better, target)


def sent(proposals, losses):
    """Return the next candidates, none at the end."""
    try:
        return proposals.send(losses)
    except StopIteration:
        return []


def test_a_batch_takes_no_more_rollouts_and_no_candidate_twice(space, costs):
    wanted = space(50, 8, errors={"velocity": costs(50, 2)}, batch=8)
    proposals, seen, sizes = joint(wanted, random.Random(0)), [], []
    candidates = next(proposals)
    while candidates:
        seen += candidates
        sizes.append(len(candidates))
        losses = [random.Random(candidate.key).random() for candidate in candidates]
        candidates = sent(proposals, losses)
    assert max(sizes) == 8
    assert len({candidate.key for candidate in seen}) == len(seen)
    assert rollout_limit(50, 8) <= rollouts(seen) < rollout_limit(50, 8) + 2
