"""The reference run of a prompt set: every step computed, the latents of each, and Gram matrices of what it computed.

    states[k] = x_k                            k = 0 … steps
    gram[n, b, i, j] = ⟨r_i, r_j⟩ / size       of prompt n and branch b; r_i is what a policy could cache at step i

Policies are fitted and scored against the states. From the Gram matrices, the error of reusing any combination of
steps is a small linear solve (`budc.compiler.fitting.gram`). Every shard of the prompt set is on disk as soon as it is
finished.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from budc.compiler.denoisers.batched import BatchedDenoiser
from budc.compiler.rollouts.linear_form import LinearForm
from budc.compiler.rollouts.payloads import CACHED_PAYLOADS
from budc.compiler.rollouts.policies import full_policy
from budc.compiler.rollouts.policy import PolicyTrajectory
from budc.compiler.rollouts.step import take_step
from budc.compiler.storage.journal import Journal
from budc.compiler.storage.tensors import shard_spans, stored_shards
from budc.progress import progress
from budc.schema.policy import PAYLOADS, Payload


@dataclass(frozen=True)
class ReferenceRun:
    """`states` (steps + 1, N, ...) float32; `gram` payload -> (N, branches, steps, steps) float64.

    `residual_bytes`: memory of one sample's trunk residual of one branch and step.
    """

    states: Tensor
    gram: dict[str, Tensor]
    residual_bytes: int

    def __len__(self) -> int:
        return self.states.shape[1]

    @property
    def latents(self) -> Tensor:
        """The final latents (N, ...)."""
        return self.states[-1]

    def part(self, first: int, last: int) -> ReferenceRun:
        """Return the samples first..last-1."""
        gram = {name: value[first:last] for name, value in self.gram.items()}
        return ReferenceRun(self.states[:, first:last], gram, self.residual_bytes)


class _ReferenceTrajectory(PolicyTrajectory):
    """The rollout that computes every step, and keeps what every payload would cache: payload -> branch -> steps."""

    def __init__(self, denoiser: BatchedDenoiser, form: LinearForm) -> None:
        super().__init__(denoiser, form, full_policy(form.steps, denoiser.branches))
        self.recorded: dict[Payload, dict[str, list[Tensor]]] = {
            payload: {branch: [] for branch in denoiser.branches} for payload in PAYLOADS
        }
        self.residual_bytes = 0

    def record(self, branch: str, velocity: Tensor, residual: Tensor) -> None:
        """Keep what every payload would cache, and the size of one sample's residual."""
        super().record(branch, velocity, residual)
        self.residual_bytes = residual[0].numel() * residual.element_size()
        for payload, branches in self.recorded.items():
            branches[branch].append(CACHED_PAYLOADS[payload].cached(velocity, residual))


def reference_run(denoiser: BatchedDenoiser, form: LinearForm, journal: Journal, label: str) -> ReferenceRun:
    """Run every step of every prompt, resuming from the journal; `denoiser.forwards` counts resumed shards too.

    Raises:
        JournalCorrupt: a shard on disk is not what was written.
        DeviceMemory: one sample does not fit into the memory of the device.
    """

    def run_shard(first: int, last: int) -> tuple[Mapping[str, Tensor], int]:
        # Unstacked: there is one candidate, and padding would only cost.
        shard = _run(denoiser.unstacked(denoiser.conditions.part(first, last)), form, bar.advance)
        tensors = {"states": shard.states, **{f"gram {name}": gram for name, gram in shard.gram.items()}}
        return tensors, shard.residual_bytes

    runs: list[ReferenceRun] = []
    names = ["states", *(f"gram {name}" for name in PAYLOADS)]
    with progress(label, len(shard_spans(denoiser.samples)) * form.steps) as bar:
        for shard in stored_shards(journal, label, denoiser.samples, names, run_shard):
            gram: dict[str, Tensor] = {name: shard.tensors[f"gram {name}"] for name in PAYLOADS}
            runs.append(ReferenceRun(shard.tensors["states"], gram, shard.note))
            denoiser.forwards += form.steps * len(runs[-1]) * len(denoiser.branches)
            for _ in range(form.steps if shard.replayed else 0):
                bar.advance(replayed=True)
    return ReferenceRun(
        torch.cat([run.states for run in runs], dim=1),
        {name: torch.cat([run.gram[name] for run in runs]) for name in PAYLOADS},
        runs[0].residual_bytes,
    )


def _run(denoiser: BatchedDenoiser, form: LinearForm, advance: Callable[[], object]) -> ReferenceRun:
    trajectory = _ReferenceTrajectory(denoiser, form)
    states = [trajectory.latents]
    for _ in range(form.steps):
        take_step(denoiser, [trajectory])
        states.append(trajectory.latents)
        advance()
    gram: dict[str, Tensor] = {
        payload: torch.stack([_gram(steps) for steps in branches.values()], dim=1)
        for payload, branches in trajectory.recorded.items()
    }
    return ReferenceRun(torch.stack(states), gram, trajectory.residual_bytes)


def _gram(cached: list[Tensor]) -> Tensor:
    # One sample at a time: the residuals of a whole run of a real model are gigabytes.
    matrices = []
    for sample in range(len(cached[0])):
        flat = torch.stack([step[sample].flatten().float() for step in cached])
        matrices.append((flat @ flat.T).double() / flat.shape[1])
    return torch.stack(matrices)
