"""The tree of rollouts: candidates that begin alike share what they computed, exactly.

A node is a rollout after a computed step, named by its prefix: which steps were computed until then, by which
branches. Reused steps need no node; a node is carried along them as far as some candidate asks. Two candidates share
every node up to the first step at which they differ, because what a rule does at a step depends on the past alone.
Between batches a node keeps what was cached at computed steps and its coefficients; with velocities as payload, these
give every step again without a forward.

Memory is bounded by forgetting the nodes that were used longest ago. Which ones are remembered is decided on
prefixes, not tensors: a resumed search goes through the prefixes of what it had scored (`Tree.note`), and then counts
the forwards that an undisturbed one counts. Candidates of a batch are counted one after another, so where memory is
short the batch, which keeps its nodes to its end, runs somewhat fewer.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from budc.compiler.denoisers.batched import BatchedDenoiser
from budc.compiler.fitting.trajectory import CoefficientRows
from budc.compiler.rollouts.candidate import CandidateTrajectory, CoefficientFit
from budc.compiler.rollouts.linear_form import LinearForm
from budc.compiler.rollouts.metrics import latent_errors
from budc.compiler.rollouts.node_memory import MEMORY, PrefixMemory, node_bytes
from budc.compiler.rollouts.prefix import Prefix, prefixes
from budc.compiler.rollouts.reference_run import ReferenceRun
from budc.compiler.rollouts.step import take_step
from budc.compiler.search.space import Candidate


@dataclass(frozen=True)
class Rollout:
    """A candidate's squared errors per prompt, its coefficients per step and branch, and its cost in forwards."""

    errors: tuple[float, ...]
    rows: tuple[CoefficientRows, ...]
    forwards: int


class Tree:
    """Rolls out candidates on one prompt set, whose reference run is known.

    It remembers up to `memory` bytes of nodes, in files of `folder` where the host has little memory left
    (`budc.compiler.storage.spill`). The velocities of a batch of candidates come on top while it is rolled out.
    `network.forwards` counts what was really computed; `Rollout.forwards` what an undisturbed search computes.
    """

    def __init__(
        self,
        network: BatchedDenoiser,
        form: LinearForm,
        run: ReferenceRun,
        folder: Path,
        memory: int = MEMORY,
    ) -> None:
        self.network = network
        self.form = form
        self.run = run
        self._folder = folder
        self._coefficients = CoefficientFit(network, form, run)
        self._remembered = PrefixMemory[Prefix](memory)
        self._nodes: dict[Prefix, CandidateTrajectory] = {}

    def cost(self, candidate: Candidate) -> int:
        """Return the forwards that a candidate's rollout would cost at this point."""
        fresh = self._missing(self._prefixes(candidate), self._remembered)
        return sum(len(prefix.computing) for prefix in fresh) * self.network.samples

    def note(self, candidate: Candidate) -> int:
        """Remember a candidate by its prefixes alone; return the forwards that its rollout costs at this point."""
        cost, path = self.cost(candidate), self._prefixes(candidate)
        for forgotten in self._remembered.use(path, self._sizes(path)):
            self._nodes.pop(forgotten, None)
        return cost

    def roll_out(self, candidates: Sequence[Candidate]) -> list[Rollout]:
        """Roll out candidates that were not noted. Raises: see `rolled_out`."""
        return self.rolled_out(candidates, [self.note(candidate) for candidate in candidates])

    def rolled_out(self, candidates: Sequence[Candidate], costs: Sequence[int]) -> list[Rollout]:
        """Roll out candidates that were noted at these costs: those that compute at the same step do so in one batch.

        Raises:
            DeviceMemory: one sample does not fit into the memory of the device.
            OutputError: neither memory nor disk has room for what is cached.
        """
        nodes = dict(self._nodes)
        paths = [self._prefixes(candidate) for candidate in candidates]
        missing = {prefix for path in paths for prefix in self._missing(path, nodes)}
        for step in sorted({prefix.step for prefix in missing}):
            grown = [self._start(prefix, nodes) for prefix in sorted(missing) if prefix.step == step]
            take_step(self.network, grown)
            nodes.update({node.prefix: node for node in grown})
        rollouts = []
        for path, cost in zip(paths, costs, strict=True):
            node = nodes[path[-1]]
            self._carry(node, self.form.steps)
            errors = latent_errors(node.latents, self.run.latents)
            rollouts.append(Rollout(tuple(errors), tuple(node.rows), cost))
            node.release()
        self._nodes = {prefix: node for prefix, node in nodes.items() if prefix in self._remembered}
        for node in self._nodes.values():
            node.release()
        return rollouts

    @property
    def _noise(self) -> Tensor:
        return self.network.conditions.noise

    def _sizes(self, path: Sequence[Prefix]) -> list[int]:
        """Return the bytes of each node of a path, for all samples."""
        latents = self._noise[:1].numel() * self._noise.element_size()
        ends = [*(prefix.step for prefix in path[1:]), self.form.steps]
        sizes = (
            node_bytes(
                prefix.payload, latents, self.run.residual_bytes, len(prefix.computing), end - prefix.step
            )
            for prefix, end in zip(path, ends, strict=True)
        )
        return [self.network.samples * size for size in sizes]

    def _prefixes(self, candidate: Candidate) -> list[Prefix]:
        return prefixes(candidate, self.network.branches)

    def _missing(self, path: Sequence[Prefix], nodes: Container[Prefix]) -> list[Prefix]:
        # From the longest back to the first that is in `nodes`; shorter prefixes are not needed then.
        missing: list[Prefix] = []
        for prefix in reversed(path):
            if prefix in nodes:
                break
            missing.append(prefix)
        return missing

    def _start(self, prefix: Prefix, nodes: Mapping[Prefix, CandidateTrajectory]) -> CandidateTrajectory:
        parent = prefix.parent
        if parent is None:
            return CandidateTrajectory(prefix, self._noise, self._coefficients, self._folder)
        self._carry(nodes[parent], prefix.step)
        return nodes[parent].extended(prefix)

    def _carry(self, node: CandidateTrajectory, step: int) -> None:
        while node.step < step:
            take_step(self.network, [node])
