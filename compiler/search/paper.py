"""The reference search of arXiv 2606.13496: simulated annealing over masks, then steepest hill climbing.

1. Start: a protected prefix of computed steps, the rest drawn at random.
2. Annealing: 200 moves at temperatures that fall geometrically. A move relocates one computed step (one move in
   ten: two), seven times in ten to a free step at most 3 away, else to any free step.
3. Hill climbing from the best mask so far, at most 20 rounds: a round scores, for every computed step, all moves
   within 3 steps and 2 random farther ones, and takes the best if it is better.

Unlike the published code, every mask is scored before it may win, the start included, and the random numbers are
seeded.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection

from budc.compiler.search.space import Candidate, Proposals, Space

ANNEALING_STEPS = 200
CLIMBING_ROUNDS = 20
NEAR = 3
FAR_JUMPS = 2
NEAR_SHARE = 0.7
DOUBLE_SHARE = 0.1

Steps = tuple[int, ...]


def protected_prefix(space: Space) -> int:
    """Return how many leading steps are always computed: at least the first, and so few that the fixed ones fit."""
    return max(
        1, min(int(space.annealing.protected_fraction * space.nfe), space.nfe - len(space.first_steps))
    )


def protected(space: Space) -> set[int]:
    """Return the steps that are always computed: the prefix and the fixed ones."""
    return {*range(protected_prefix(space)), *space.fixed}


def random_relocation(space: Space, steps: Steps, rng: random.Random) -> Steps:
    """Move a random computed step that is not protected to a free one; change nothing where none can move."""
    always = protected(space)
    movable = [step for step in steps if step not in always]
    free = _free(space, steps)
    if not movable or not free:
        return steps
    chosen = rng.choice(movable)
    near = [step for step in free if abs(step - chosen) <= NEAR]
    target = rng.choice(near if near and rng.random() < NEAR_SHARE else free)
    return tuple(sorted({*steps, target} - {chosen}))


def neighbours(space: Space, steps: Steps, rng: random.Random) -> list[Steps]:
    """List the masks of one round of hill climbing without repeats, in a fixed order."""
    always = protected(space)
    masks: dict[Steps, None] = {}
    for chosen in (step for step in steps if step not in always):
        free = _free(space, steps)
        near = [step for step in free if abs(step - chosen) <= NEAR]
        far = [step for step in free if abs(step - chosen) > NEAR]
        for target in [*near, *rng.sample(far, min(FAR_JUMPS, len(far)))]:
            masks[tuple(sorted({*steps, target} - {chosen}))] = None
    return list(masks)


def _free(space: Space, steps: Collection[int]) -> list[int]:
    return [step for step in range(space.steps) if step not in steps]


def candidates_of_paper(space: Space) -> int:
    """Return how many candidates the search scores at most; usually fewer rounds improve."""
    movable = space.nfe - len(protected(space))
    return 1 + ANNEALING_STEPS + CLIMBING_ROUNDS * movable * (2 * NEAR + FAR_JUMPS)


def paper(space: Space, rng: random.Random) -> Proposals:
    """Anneal with one candidate at a time, then climb with one round at a time."""
    always = protected(space)
    drawn = rng.sample(_free(space, always), space.nfe - len(always))
    current: Steps = tuple(sorted([*always, *drawn]))
    (loss,) = yield [Candidate.of(space.steps, current)]
    best, best_loss = current, loss
    hot, cold = space.annealing.temperature_start, space.annealing.temperature_end
    for move in range(ANNEALING_STEPS):
        temperature = hot * (cold / hot) ** (move / (ANNEALING_STEPS - 1))
        proposal = random_relocation(space, current, rng)
        if rng.random() < DOUBLE_SHARE:
            proposal = random_relocation(space, proposal, rng)
        (proposal_loss,) = yield [Candidate.of(space.steps, proposal)]
        if proposal_loss < loss or rng.random() < math.exp((loss - proposal_loss) / temperature):
            current, loss = proposal, proposal_loss
        if proposal_loss < best_loss:
            best, best_loss = proposal, proposal_loss
    for _ in range(CLIMBING_ROUNDS):
        masks = neighbours(space, best, rng)
        if not masks:
            break
        losses = yield [Candidate.of(space.steps, steps) for steps in masks]
        lowest = min(range(len(masks)), key=losses.__getitem__)
        if losses[lowest] >= best_loss:
            break
        best, best_loss = masks[lowest], losses[lowest]
    return Candidate.of(space.steps, best)
