"""Where the next mask to roll out is looked for."""

import itertools
import math

from budc.compiler.search.dp import shortest_path
from budc.compiler.search.moves import Trial, all_relocations, run_shifts
from budc.compiler.search.promising import CENTRES, REACH, most_promising


def cost(path, errors):
    """The reuse errors of a mask, summed."""
    last, total = (0, 0), 0.0
    for step in range(len(errors)):
        if step in path:
            last = (last[1], step)
        else:
            total += errors[last[0]][last[1]][step]
    return total


def trials(losses):
    """Return losses of masks as those of trials on the one group of prompts."""
    return {Trial(slots): loss for slots, loss in losses.items()}


def moved(space, slots):
    """Return all masks one move away."""
    return {*all_relocations(space, slots), *run_shifts(space, slots, REACH)}


def test_where_all_masks_are_scored_none_is_promising(space):
    losses = {(0, *rest): float(sum(rest)) for rest in itertools.combinations(range(1, 6), 2)}
    assert most_promising(space(6, 3), "velocity", trials(losses)) is None


def test_the_most_promising_mask_is_new_and_at_most_two_moves_from_one_of_the_best(space, costs):
    box = space(16, 4, errors={"velocity": costs(16, 1)})
    losses = {(0, 4, 8, 12): -3.0, (0, 4, 8, 11): -3.5, (0, 2, 3, 9): -3.2, (0, 1, 2, 3): 1.0}
    slots = most_promising(box, "velocity", trials(losses))
    near = set.union(*(moved(box, centre) for centre in sorted(losses, key=losses.get)[:CENTRES]))
    assert slots not in losses
    assert slots in near | {far for mask in near for far in moved(box, mask)}


def test_a_mask_far_away_is_found_among_the_others_that_are_given(space, costs):
    """Losses follow the reuse errors, so the cheapest of all masks promises most, wherever it is."""
    errors = costs(40, 1)
    box = space(40, 8, errors={"velocity": errors})
    cheapest = shortest_path(box, "velocity")
    near = [tuple(range(at, at + 7)) for at in (30, 31, 32)]
    losses = {(0, *mask): math.log(cost((0, *mask), errors)) for mask in near}
    assert most_promising(box, "velocity", trials(losses)) != cheapest
    assert most_promising(box, "velocity", trials(losses), [cheapest]) == cheapest


def test_a_run_of_computed_steps_moves_in_one_rollout(space):
    """Two runs have been shifted before, each to its gain: next they are shifted together, eight steps at once."""
    box = space(40, 9)
    best = (0, 4, 8, 12, 16, 20, 24, 28, 32)
    early = (*best[:1], *(slot + 1 for slot in best[1:5]), *best[5:])
    late = (*best[:5], *(slot + 1 for slot in best[5:]))
    slots = most_promising(box, "velocity", trials({best: 0.0, early: -0.5, late: -0.4}))
    assert sum(a != b for a, b in zip(slots, best, strict=True)) > 5
