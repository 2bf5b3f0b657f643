"""The full run of a prompt set: every state on its way, and the Gram matrices of what it computed.

    states[k] = x_k                       k = 0 … steps
    gram[b, i, j] = ⟨payload_i, payload_j⟩       of branch b, per element, mean over prompts of the normalised ones

States are what a policy is to follow; from the Gram matrices the reuse error of any combination of steps is a
small linear solve (`budc.compiler.fitting.gram`). Parts of the prompt set are on disk as soon as they are finished.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from budc.compiler.denoisers.batched import BatchedDenoiser
from budc.compiler.rollouts.linear_form import LinearForm
from budc.compiler.storage.journal import Journal
from budc.compiler.storage.tensors import shard_spans, stored_shards
from budc.progress import progress
from budc.schema.policy import PAYLOADS


@dataclass(frozen=True)
class ReferenceRun:
    """`states` (steps + 1, N, ...) float32; `gram` payload -> (N, branches, steps, steps) float64.

    `residual_bytes`: memory of one sample's trunk residual.
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


def reference_run(network: BatchedDenoiser, form: LinearForm, journal: Journal, label: str) -> ReferenceRun:
    """Run every step of every prompt, resuming from the journal; `network.forwards` counts resumed parts too.

    Raises:
        JournalCorrupt: a part on disk is not what was written.
    """

    def make(first: int, last: int) -> tuple[Mapping[str, Tensor], Mapping[str, int]]:
        # Not stacked: there is one candidate, and padding would only cost.
        run = _run(network.unstacked(network.conditions.part(first, last)), form, bar.advance)
        tensors = {"states": run.states, **{f"gram {name}": gram for name, gram in run.gram.items()}}
        return tensors, {"bytes": run.residual_bytes}

    parts: list[ReferenceRun] = []
    with progress(label, len(shard_spans(network.samples)) * form.steps) as bar:
        for part in stored_shards(journal, label, network.samples, make):
            gram: dict[str, Tensor] = {name: part.tensors[f"gram {name}"] for name in PAYLOADS}
            parts.append(ReferenceRun(part.tensors["states"], gram, part.notes["bytes"]))
            network.forwards += form.steps * len(parts[-1]) * len(network.denoiser.branches)
            for _ in range(form.steps if part.replayed else 0):
                bar.advance(replayed=True)
    return ReferenceRun(
        torch.cat([part.states for part in parts], dim=1),
        {name: torch.cat([part.gram[name] for part in parts]) for name in PAYLOADS},
        parts[0].residual_bytes,
    )


def _run(network: BatchedDenoiser, form: LinearForm, advance: Callable[[], object]) -> ReferenceRun:
    noise, names = network.conditions.noise, network.denoiser.branches
    states, guided = [noise], list[Tensor]()
    payloads: dict[str, dict[str, list[Tensor]]] = {
        name: {branch: [] for branch in names} for name in PAYLOADS
    }
    for step, timestep in enumerate(form.timesteps.float()):
        velocities = {}
        for branch in names:
            velocities[branch], residual = network.compute(branch, states[-1], timestep)
            payloads["trunk-residual"][branch].append(residual)
            payloads["velocity"][branch].append(velocities[branch])
        guided.append(network.denoiser.guide(velocities, timestep))
        states.append(form.latents(step + 1, noise, guided))
        advance()
    gram = {
        name: torch.stack([_gram(per_step) for per_step in branches.values()], dim=1)
        for name, branches in payloads.items()
    }
    residual = next(iter(payloads["trunk-residual"].values()))[0]
    return ReferenceRun(torch.stack(states), gram, residual[0].numel() * residual.element_size())


def _gram(payloads: list[Tensor]) -> Tensor:
    # One sample at a time: the residuals of a whole run of a real model are gigabytes.
    rows = []
    for sample in range(len(payloads[0])):
        flat = torch.stack([payload[sample].flatten().float() for payload in payloads])
        rows.append((flat @ flat.T).double() / flat.shape[1])
    return torch.stack(rows)
