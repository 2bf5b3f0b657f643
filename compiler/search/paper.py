"""The reference search of arXiv 2606.13496: simulated annealing over masks, then steepest hill climbing.

1. Start: a protected prefix of computed steps, the rest drawn at random.
2. Annealing: 200 moves at temperatures that fall geometrically. A move relocates one computed step (one in
   ten moves: two), seven times in ten to a free step at most 3 away, else to any free step.
3. Hill climbing from the best mask so far: up to 20 rounds; a round scores every relocation within 3 steps
   and 2 random far ones per computed step, and takes the best if it is better.

Unlike the published code, every mask is scored before it may win, the start included, and the randomness is
seeded.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Generator

from budc.compiler.search.space import Candidate, Space

ANNEALING_STEPS = 200
CLIMBING_ROUNDS = 20
NEAR = 3
FAR_JUMPS = 2
NEAR_SHARE = 0.7
DOUBLE_SHARE = 0.1

Steps = tuple[int, ...]


def protected_prefix(space: Space) -> int:
    """Number of leading steps that are always computed, at least the first; the fixed ones have their share too."""
    return max(
        1, min(int(space.annealing.protected_fraction * space.nfe), space.nfe - len(space.first_steps))
    )


def protected(space: Space) -> set[int]:
    """The steps that are always computed: the prefix, and those that the space fixes."""
    return {*range(protected_prefix(space)), *space.fixed}


def relocate(space: Space, steps: Steps, rng: random.Random) -> Steps:
    """Move one computed step that is not protected to a free one; unchanged where none can move."""
    kept = protected(space)
    movable = [step for step in steps if step not in kept]
    free = _free(space, steps)
    if not movable or not free:
        return steps
    chosen = rng.choice(movable)
    near = [step for step in free if abs(step - chosen) <= NEAR]
    target = rng.choice(near if near and rng.random() < NEAR_SHARE else free)
    return tuple(sorted({*steps, target} - {chosen}))


def neighbours(space: Space, steps: Steps, rng: random.Random) -> list[Steps]:
    """List the relocations of one round of hill climbing, each once, in a fixed order."""
    kept = protected(space)
    found: dict[Steps, None] = {}
    for chosen in (step for step in steps if step not in kept):
        free = _free(space, steps)
        near = [step for step in free if abs(step - chosen) <= NEAR]
        far = [step for step in free if abs(step - chosen) > NEAR]
        for target in [*near, *rng.sample(far, min(FAR_JUMPS, len(far)))]:
            found[tuple(sorted({*steps, target} - {chosen}))] = None
    return list(found)


def _free(space: Space, steps: Collection[int]) -> list[int]:
    return [step for step in range(space.steps) if step not in steps]


def candidates_of_paper(space: Space) -> int:
    """Return how many candidates the search scores at the most; it usually climbs fewer rounds."""
    movable = space.nfe - len(protected(space))
    return 1 + ANNEALING_STEPS + CLIMBING_ROUNDS * movable * (2 * NEAR + FAR_JUMPS)


def paper(space: Space, rng: random.Random) -> Generator[list[Candidate], list[float], Candidate]:
    """Anneal, then climb; one candidate at a time while annealing, a round at a time while climbing."""
    kept = protected(space)
    drawn = rng.sample(_free(space, kept), space.nfe - len(kept))
    current: Steps = tuple(sorted([*kept, *drawn]))
    (loss,) = yield [Candidate.of(space.steps, current)]
    best, best_loss = current, loss
    hot, cold = space.annealing.temperature_start, space.annealing.temperature_end
    for move in range(ANNEALING_STEPS):
        temperature = hot * (cold / hot) ** (move / (ANNEALING_STEPS - 1))
        proposal = relocate(space, current, rng)
        if rng.random() < DOUBLE_SHARE:
            proposal = relocate(space, proposal, rng)
        (proposed,) = yield [Candidate.of(space.steps, proposal)]
        if proposed < loss or rng.random() < math.exp((loss - proposed) / temperature):
            current, loss = proposal, proposed
        if proposed < best_loss:
            best, best_loss = proposal, proposed
    for _ in range(CLIMBING_ROUNDS):
        around = neighbours(space, best, rng)
        if not around:
            break
        losses = yield [Candidate.of(space.steps, steps) for steps in around]
        lowest = min(range(len(around)), key=losses.__getitem__)
        if losses[lowest] >= best_loss:
            break
        best, best_loss = around[lowest], losses[lowest]
    return Candidate.of(space.steps, best)
