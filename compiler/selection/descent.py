"""Descent: computed steps of the best mask moved by one, the latest first, where all fitted prompts can judge.

A move of a late step leaves most of the rollout as it was, so many moves cost as much as one rollout. The groups of a
search can hardly tell such neighbours apart.
"""

from __future__ import annotations

from collections.abc import Iterator

from budc.compiler.rollouts.forest import Forest
from budc.compiler.search import Objective, Space
from budc.compiler.search.moves import Slots, candidate_of, mask_count, movable_slots, relocations, slots_of
from budc.compiler.selection.scores import Scored, Scores
from budc.compiler.storage.journal import Journal
from budc.progress import progress


def descend(
    space: Space,
    best: Scored,
    name: str,
    objective: Objective,
    forest: Forest,
    journal: Journal,
    forwards: int,
) -> tuple[list[Scored], int]:
    """Move each step by one where that lowers the loss on the prompts of a forest of one tree, in so many forwards.

    `best` is the candidate to start from, scored on these prompts. Returns what has a lower loss, best first, and the
    forwards spent.
    """
    slots, lowest = slots_of(space, best.candidate), best.loss
    evaluation = forest.trees[0].network.samples * (len(space.branches) // mask_count(space))
    with progress(name, 2 * len(movable_slots(space, slots))) as bar:
        scores = Scores(name, objective, forest, journal, bar)
        for slot in movable_slots(space, slots):
            for moved, evaluations in _moves(space, slots, slot):
                if scores.forwards + evaluations * evaluation > forwards:
                    break
                (loss,) = scores.losses([candidate_of(space, moved, best.candidate.payload)])
                if loss < lowest:
                    slots, lowest = moved, loss
                    break
    return [scored for scored in scores.ranking() if scored.loss < best.loss], scores.forwards


def _moves(space: Space, slots: Slots, slot: int) -> Iterator[tuple[Slots, int]]:
    """Yield the slots after each move of one by a step, and how many evaluations that changes."""
    for moved in relocations(space, slots, slot, {1}):
        first = min(set(slots) ^ set(moved))
        yield moved, sum(other >= first for other in moved)
