"""What the training of a policy costs, before it is run: for plans, and for the time that is left."""

from __future__ import annotations

from typing import NamedTuple

from budc.compiler.search import algorithm
from budc.compiler.selection.effort import Effort, effort, epochs
from budc.compiler.selection.stages import Stages
from budc.compiler.training.forwards import TrainingCost
from budc.compiler.training.second_stage import configuration


class Paired(NamedTuple):
    """The samples that an alignment trains on and is judged by: each prompt with several noises."""

    training: int
    judging: int


def paired(given: Effort, prompts: Stages) -> Paired:
    """Return how many there are, with at most as many noises of each prompt as there are prompts."""
    training, judging = prompts.fit, prompts.judge
    return Paired(min(given.pairings, training) * training, min(given.judged_pairings, judging) * judging)


def training_cost(search: str, effort_name: str, nfe: int, prompts: Stages, branches: int) -> TrainingCost:
    """Return the cost, a branch, of an alignment to `nfe` evaluations; after the paper's search of its second stage."""
    if not algorithm(search).arbitrated:
        return TrainingCost(nfe, prompts.fit, 0, configuration(branches).epochs(prompts.fit))
    given = effort(effort_name)
    samples = paired(given, prompts)
    return TrainingCost(nfe, samples.training, samples.judging, epochs(nfe, given))
