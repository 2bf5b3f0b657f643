"""Descent: computed steps of the best mask moved by one, the latest first, where all fitted prompts can judge.

A move of a late step leaves most of the rollout as it was, so many moves cost as much as one rollout. The groups of a
search can hardly tell such neighbours apart.
"""

from __future__ import annotations

from budc.compiler.rollouts.forest import Forest
from budc.compiler.search import Candidate, Space
from budc.compiler.search.moves import candidate_of, movable_slots, relocations, slots_of
from budc.compiler.selection.scores import Scored, Scores


def descend(space: Space, best: Scored, scores: Scores, forest: Forest, forwards: int) -> None:
    """Score moves of each step by one, from the best on where one has a lower loss, within so many forwards in all.

    `best` was scored by `scores`, on the prompts of `forest`, which has one tree.
    """
    lowest, loss = best.candidate, best.loss
    for slot in movable_slots(space, slots_of(space, lowest)):
        for move in moves(space, lowest, slot):
            if scores.forwards + forest.cost(move) > forwards:
                continue
            (moved,) = scores.losses([move])
            if moved < loss:
                lowest, loss = move, moved
                break


def moves(space: Space, candidate: Candidate, slot: int) -> list[Candidate]:
    """Return what moves of a slot by one step make of a candidate."""
    moved = relocations(space, slots_of(space, candidate), slot, {1})
    return [candidate_of(space, slots, candidate.payload) for slots in moved]
