import random

import pytest

from budc.compiler.search import ALGORITHMS
from budc.compiler.search.hillclimb import descend
from budc.compiler.search.moves import (
    all_relocations,
    candidate_of,
    slots_of,
    with_other_payloads,
)
from budc.schema.mask import StepMask


def first_round(space, losses, seed=0):
    """Compute steps of every candidate of the first batches, answered from `losses`."""
    proposals = ALGORITHMS["hillclimb"].propose(space, random.Random(seed))
    batches = [next(proposals)]
    for values in losses:
        batches.append(proposals.send(values))
    return [[candidate.mask.compute_steps for candidate in batch] for batch in batches]


def test_late_steps_move_first_and_by_shrinking_sizes(space):
    box = space(40, 4, payloads=("velocity",))
    flat = [[0.0]] + [[1.0, 1.0]] * 9
    start, *rounds = first_round(box, flat)
    assert start == [(0, 10, 20, 30)] == [StepMask.uniform(40, 4).compute_steps]
    moved = []
    for batch in rounds[:9]:
        sizes = {sum(abs(a - b) for a, b in zip(mask, start[0], strict=True)) for mask in batch}
        steps = {set(start[0]).difference(mask).pop() for mask in batch}
        moved.append((*sizes, *steps))
    assert moved == [(size, step) for size in (3, 2, 1) for step in (30, 20, 10)]


def test_an_improvement_is_taken_at_once(space):
    box = space(40, 4, payloads=("velocity",))
    batches = first_round(box, [[9.0], [8.0, 7.0]])
    assert batches[1] == [(0, 10, 20, 27), (0, 10, 20, 33)]
    assert batches[2] == [(0, 10, 17, 33), (0, 10, 23, 33)]


@pytest.mark.parametrize("seed", range(5))
def test_the_winner_is_a_local_minimum(run, space, seed):
    box = space(20, 5)

    def loss(candidate):
        return random.Random(f"{seed} {candidate.key}").random()

    winner, _ = run("hillclimb", box, loss, seed)
    neighbours = with_other_payloads(box, winner)
    for slots in all_relocations(box, slots_of(box, winner), (1, 2, 3)):
        neighbours.append(candidate_of(box, slots, winner.payload))
    assert loss(winner) < min(map(loss, neighbours))


@pytest.mark.parametrize("seed", range(5))
def test_a_local_minimum_is_left_by_moving_two_random_steps(space, seed):
    """A round of three steps by three sizes brings nothing, then the perturbed mask is scored."""
    box = space(40, 4, payloads=("velocity",))
    batches = first_round(box, [[0.0]] + [[1.0, 1.0]] * 9, seed)
    (start,), (restart,) = batches[0], batches[10]
    assert len(set(start) - set(restart)) == 2


def test_a_better_minimum_after_a_restart_wins(space):
    proposals = ALGORITHMS["hillclimb"].propose(space(40, 4, payloads=("velocity",)), random.Random(0))
    batches = [next(proposals)]
    for _ in range(10):
        batches.append(proposals.send([0.0] * len(batches[-1])))
    winner, loss = None, -1.0
    while winner is None:
        try:
            batches.append(proposals.send([loss] * len(batches[-1])))
        except StopIteration as end:
            winner = end.value
        loss = 0.0
    assert [winner] == batches[10] != batches[0]


def test_the_payload_is_changed_where_the_other_one_has_become_better(run, space):
    """Trunk residuals are better where the descent starts, velocities where it ends."""
    target = (0, 3, 5, 31)

    def loss(candidate):
        distance = sum((a - b) ** 2 for a, b in zip(candidate.mask.compute_steps, target, strict=True))
        return float(distance) if candidate.payload == "velocity" else 5 + distance / 2

    winner, _ = run("hillclimb", space(40, 4), loss)
    assert (winner.mask.compute_steps, winner.payload) == (target, "velocity")


def test_a_computed_step_moves_to_the_other_branch(space):
    """On a flat landscape but for one candidate, which only a move between branches reaches."""
    box = space(20, 3, branches=("cond", "uncond"), separate=True, payloads=("velocity",))
    start, wanted = (
        candidate_of(box, slots, "velocity") for slots in [(0, 1, 20, 25, 30, 35), (0, 1, 20, 25, 31, 35)]
    )
    proposals = descend(box, (start, 1.0), 3)
    batch = next(proposals)
    minimum = None
    while minimum is None:
        try:
            batch = proposals.send([float(proposed != wanted) for proposed in batch])
        except StopIteration as end:
            minimum = end.value
    assert minimum == (wanted, 0.0)
    assert [mask.compute_steps for mask in wanted.masks] == [(0, 10), (0, 12, 15, 17)]
