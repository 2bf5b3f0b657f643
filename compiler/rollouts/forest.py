"""Forest: a tree of rollouts for each group of prompts, and the workers that roll out in place of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from budc.compiler.rollouts.tree import Rollout, Tree
from budc.compiler.rollouts.workers import PromptSpan, SearchWorkers
from budc.compiler.search.space import Candidate


@dataclass(frozen=True)
class Forest:
    """The trees of all groups, in their order, and the prompts of each. Workers share less with each other."""

    trees: Sequence[Tree]
    spans: Sequence[PromptSpan]
    workers: SearchWorkers | None = None

    def cost(self, candidate: Candidate) -> int:
        """Return what a candidate's rollout would cost; see `Tree.cost`."""
        return self.trees[candidate.group].cost(candidate)

    def note(self, candidate: Candidate) -> int:
        """Remember a candidate in the tree of its group; see `Tree.note`."""
        return self.trees[candidate.group].note(candidate)

    def roll_out(self, candidates: Sequence[Candidate]) -> list[Rollout]:
        """Roll out candidates that were not noted. Raises: see `rollouts`."""
        costs = [self.note(candidate) for candidate in candidates]
        finished = dict(self.rollouts(candidates, costs))
        return [finished[position] for position in range(len(candidates))]

    def rollouts(
        self, candidates: Sequence[Candidate], costs: Sequence[int]
    ) -> Iterator[tuple[int, Rollout]]:
        """Roll out candidates that were noted at these costs; yield each with its position, as it is finished.

        Raises:
            DeviceMemory: one sample does not fit into the memory of the device.
            OutputError: neither memory nor disk has room for what is cached.
        """
        if self.workers is not None:
            spans = [self.spans[candidate.group] for candidate in candidates]
            for position, fit in self.workers.roll_out(spans, candidates):
                yield position, Rollout(fit.errors, fit.rows, costs[position])
            return
        for group, tree in enumerate(self.trees):
            positions = [at for at, candidate in enumerate(candidates) if candidate.group == group]
            rolled_out = tree.rolled_out(
                [candidates[at] for at in positions], [costs[at] for at in positions]
            )
            yield from zip(positions, rolled_out, strict=True)
