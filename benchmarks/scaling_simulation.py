"""How long a compile takes on more workers than there are here, by simulation, and where it stops gaining.

    python benchmarks/scaling_simulation.py --model wan2.1-14b --budget 10 --device h100

The stages and their numbers of prompts are those of the compile; the search is the real one, on made-up losses like
those of `budc.compiler.planning.dry_run`. Tasks go to whoever is free, as in `budc.compiler.workers.queue`. A worker
shares the prefixes that it has rolled out itself. A task takes its forwards, each as long as its counted FLOPs take at
an assumed share of the device's peak; loading the model, the VAE and the network between the nodes are left out.
"""

from __future__ import annotations

import heapq
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import click
from command_line import COUNT, MODEL, check_budgets, script

from budc.compiler.planning.devices import device as device_named
from budc.compiler.planning.estimate import UTILISATION
from budc.compiler.planning.workers import OF_FINALISTS
from budc.compiler.search import Candidate, algorithm
from budc.compiler.search.space import Space
from budc.compiler.selection.effort import FINALISTS, REFINED_AT_ONCE, effort, evaluations_of_refinement
from budc.compiler.selection.stages import Stages, stages_of
from budc.policies.costs import shipped_cost
from budc.policies.model_choice import choose_model
from budc.policies.profile import ModelProfile
from budc.policies.published_masks import masks_for

SIZES = ((1, 1), (1, 8), (8, 8), (64, 8), (64, 64), (512, 64), (512, 512))
"""Workers and batches that are simulated."""
ROUGHNESS = 0.5


@dataclass
class Farm:
    """Workers with a clock: seconds so far, those that they were busy, and those of each stage."""

    workers: int
    seconds: float = 0.0
    busy: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)
    known: list[set[Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.known = [set() for _ in range(self.workers)]

    def run(self, stage: str, costs: Sequence[Callable[[set[Any]], float]]) -> None:
        """Do tasks side by side; a cost depends on what its worker knows."""
        free = [(0.0, worker) for worker in range(self.workers)]
        end = 0.0
        for cost in costs:
            started, worker = heapq.heappop(free)
            took = cost(self.known[worker])
            self.busy += took
            end = max(end, started + took)
            heapq.heappush(free, (started + took, worker))
        self.wait(stage, end)

    def wait(self, stage: str, seconds: float) -> None:
        """Let time go by in a stage."""
        self.seconds += seconds
        self.stages[stage] = self.stages.get(stage, 0.0) + seconds


def pieces(prompts: int, batch: int) -> list[int]:
    """Return the sizes of the pieces that a prompt set is cut into, see `chunk_spans`."""
    size = 8
    if batch > 1:
        share = math.ceil(prompts / batch)
        size = math.ceil(share / math.ceil(share / 8))
    return [min(size, prompts - first) for first in range(0, prompts, size)]


def fixed(seconds: float) -> Callable[[set[Any]], float]:
    """Return the cost of a task that shares nothing."""
    return lambda known: seconds


def rolled_out(candidate: Candidate, seconds: float) -> Callable[[set[Any]], float]:
    """Return the cost of a candidate where each computed step that a worker does not know takes so long."""

    def cost(known: set[Any]) -> float:
        steps = candidate.mask.compute_steps
        prefixes = {(candidate.payload, candidate.group, steps[: end + 1]) for end in range(len(steps))}
        fresh = prefixes - known
        known |= fresh
        return len(fresh) * seconds

    return cost


def batches(space: Space) -> Iterator[tuple[list[Candidate], float]]:
    """Yield what the default search proposes on made-up losses, and how long it took to propose it."""
    rng = random.Random(0)
    weights = [math.exp(rng.gauss(0, ROUGHNESS)) for _ in range(space.steps)]

    def loss(candidate: Candidate) -> float:
        error, age = 1e-9, 0
        for computed, weight in zip(candidate.mask, weights, strict=True):
            age = 0 if computed else age + 1
            error += weight * age
        return math.log(error)

    proposals = algorithm("joint").propose(space, random.Random(0))
    started = time.perf_counter()
    candidates = next(proposals)
    while True:
        yield candidates, time.perf_counter() - started
        started = time.perf_counter()
        try:
            candidates = proposals.send([loss(candidate) for candidate in candidates])
        except StopIteration:
            return


def simulate(profile: ModelProfile, nfe: int, name: str, forward: float, workers: int, batch: int) -> Farm:
    """Return the workers after a compile."""
    steps, branches, given = profile.steps, len(profile.branches), effort(name)
    stages: Stages = stages_of("joint", name, nfe, profile.prompts.calibration_size, arbitrates=False)
    held_out = min(profile.prompts.held_out_size, given.report or profile.prompts.held_out_size)
    step = branches * forward
    farm = Farm(workers)
    farm.run("full runs", [fixed(count * steps * step) for count in pieces(stages.total, batch)])
    space = Space(
        steps=steps,
        nfe=nfe,
        branches=profile.branches,
        annealing=profile.search,
        rollouts=given.share(nfe),
        prompts=stages.screen,
        groups=stages.groups,
        published_masks=masks_for(profile, steps, nfe),
        batch=batch,
    )
    last: list[Candidate] = []
    for proposed, seconds in batches(space):
        farm.wait("proposals", seconds)
        farm.run("search", [rolled_out(candidate, stages.screen * step) for candidate in proposed])
        last = [*last, *proposed][-FINALISTS:]
    if stages.races:
        rollout = nfe * stages.fit * step
        farm.run("race", [fixed(OF_FINALISTS * rollout) for _ in range(given.finalists)])
        # One move after the other.
        farm.run("descent", [fixed((1 - OF_FINALISTS) * given.finalists * rollout)])
    if stages.judge:
        farm.run("arbitration", [fixed(nfe * stages.judge * step) for _ in last])
    if refined := given.refined(nfe, steps, stages.fit):
        measured = evaluations_of_refinement(nfe) * step
        spans = range(0, refined, REFINED_AT_ONCE)
        farm.run("refinement", [fixed(min(REFINED_AT_ONCE, refined - at) * measured) for at in spans])
        farm.run("refinement", [fixed(nfe * (stages.judge or stages.fit) * step)])
    elif stages.judge:
        farm.run("refit", [fixed(nfe * stages.total * step)])
    farm.run("full runs", [fixed(count * steps * step) for count in pieces(held_out, batch)])
    for _ in ("policy", "uniform", "fewer steps"):
        farm.run("report", [fixed(count * nfe * step) for count in pieces(held_out, batch)])
    return farm


@script(__doc__)
@click.option("--model", type=MODEL, default="wan2.1-14b", show_default=True)
@click.option("--budget", type=COUNT, default=10, show_default=True)
@click.option("--effort", "name", default="thorough", show_default=True)
@click.option("--device", default="h100", show_default=True)
def main(model: str, budget: int, name: str, device: str) -> None:
    """Print a table."""
    check_budgets([model], [budget], "budget")
    profile = choose_model(model)
    cost = shipped_cost(profile)
    if cost is None:
        raise click.UsageError(f"{model}: its costs are not counted")
    forward = device_named(device).seconds(cost.flops, UTILISATION)
    alone = simulate(profile, budget, name, forward, 1, 1).seconds
    print("| workers | batch | minutes | times faster | efficiency | busy | longest stages |")
    print("|---|---|---|---|---|---|---|")
    for workers, batch in SIZES:
        farm = simulate(profile, budget, name, forward, workers, batch)
        longest = sorted(farm.stages.items(), key=lambda stage: -stage[1])[:3]
        parts = ", ".join(f"{stage} {100 * seconds / farm.seconds:.0f} %" for stage, seconds in longest)
        times = alone / farm.seconds
        print(
            f"| {workers} | {batch} | {farm.seconds / 60:.1f} | {times:.1f} | {times / workers:.2f} "
            f"| {farm.busy / farm.seconds / workers:.2f} | {parts} |"
        )


if __name__ == "__main__":
    main()
