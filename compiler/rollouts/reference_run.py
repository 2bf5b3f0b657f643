"""The reference run of a prompt set: every step computed, the latents of each, and Gram matrices of what it computed.

    states[k] = x_k                            k = 0 … steps
    gram[n, b, i, j] = ⟨r_i, r_j⟩ / size       of prompt n and branch b; r_i is what a policy could cache at step i

Policies are fitted and scored against the states. From the Gram matrices, the error of reusing any combination of
steps is a small linear solve (`budc.compiler.fitting.gram`). Every chunk of the prompt set is on disk as soon as it is
finished.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from budc.compiler.denoisers.batched import BatchedDenoiser
from budc.compiler.rollouts.linear_form import LinearForm
from budc.compiler.rollouts.payloads import CACHED_PAYLOADS
from budc.compiler.rollouts.policies import full_policy
from budc.compiler.rollouts.policy import PolicyTrajectory
from budc.compiler.rollouts.step import take_step
from budc.compiler.storage.journal import Journal
from budc.compiler.storage.spill import empty, kept
from budc.compiler.storage.tensors import Chunk, Elsewhere, Span, chunk_spans, stored_chunks
from budc.progress import progress
from budc.schema.errors import UnsupportedModel
from budc.schema.policy import PAYLOADS, Payload

StatesDtype = Literal["float32", "bfloat16"]
_VALUES = 1 << 22
"""Values of a residual that are multiplied at a time."""


@dataclass(frozen=True)
class ReferenceRun:
    """`states` (steps + 1, N, ...) float32 or bfloat16; `latents`, the last of them, (N, ...) float32; `gram`
    payload -> (N, branches, steps, steps) float64.

    `residual_bytes`: memory of one sample's trunk residual of one branch and step.
    """

    states: Tensor
    latents: Tensor
    gram: dict[str, Tensor]
    residual_bytes: int

    def __len__(self) -> int:
        return len(self.latents)

    def state(self, step: int) -> Tensor:
        """Return the latents (N, ...) before a step; after the last one, the final latents."""
        return self.latents if step == len(self.states) - 1 else self.states[step]

    def part(self, first: int, last: int) -> ReferenceRun:
        """Return the samples first..last-1."""
        gram = {name: value[first:last] for name, value in self.gram.items()}
        return ReferenceRun(self.states[:, first:last], self.latents[first:last], gram, self.residual_bytes)


@dataclass(frozen=True)
class Recorded:
    """What a reference run keeps: the dtype of its states, and of which payloads it has Gram matrices."""

    states: StatesDtype = "float32"
    payloads: Sequence[Payload] = PAYLOADS

    @property
    def dtype(self) -> torch.dtype:
        """The states' dtype."""
        dtype: torch.dtype = getattr(torch, self.states)
        return dtype


class _ReferenceTrajectory(PolicyTrajectory):
    """The rollout that computes every step, and keeps what every payload would cache: payload -> branch -> steps."""

    def __init__(
        self, denoiser: BatchedDenoiser, form: LinearForm, folder: Path, payloads: Sequence[Payload]
    ) -> None:
        super().__init__(denoiser, form, full_policy(form.steps, denoiser.branches))
        self.recorded: dict[Payload, dict[str, list[Tensor]]] = {
            payload: {branch: [] for branch in denoiser.branches} for payload in payloads
        }
        self.residual_bytes = 0
        self._folder = folder

    def record(self, branch: str, velocity: Tensor, residual: Tensor) -> None:
        """Keep what every payload would cache, and the size of one sample's residual."""
        super().record(branch, velocity, residual)
        self.residual_bytes = residual[0].numel() * residual.element_size()
        for payload, branches in self.recorded.items():
            branches[branch].append(kept(CACHED_PAYLOADS[payload].cached(velocity, residual), self._folder))


def reference_run(
    denoiser: BatchedDenoiser,
    form: LinearForm,
    journal: Journal,
    label: str,
    recorded: Recorded | None = None,
    elsewhere: Elsewhere | None = None,
) -> ReferenceRun:
    """Run every step of every prompt, resuming from the journal; `denoiser.forwards` counts resumed chunks too.

    The final latents are kept in float32, the rest as `recorded` says. What does not fit into the host's memory lies
    in files beside the journal. With `elsewhere` other processes run what is missing.

    Raises:
        JournalCorrupt: a chunk on disk is not what was written.
        DeviceMemory: one sample does not fit into the memory of the device.
    """
    recorded, shape = recorded or Recorded(), denoiser.conditions.noise.shape
    states = empty((form.steps + 1, *shape), recorded.dtype, journal.folder)
    latents: list[Tensor] = []
    grams: dict[str, list[Tensor]] = {name: [] for name in recorded.payloads}
    residual_bytes = done = 0
    for chunk in reference_chunks(denoiser, form, journal, label, recorded, elsewhere=elsewhere):
        latents.append(chunk.tensors["latents"])
        for name, gram in grams.items():
            gram.append(chunk.tensors[f"gram {name}"])
        states[:, done : done + len(latents[-1])] = chunk.tensors["states"]
        done, residual_bytes = done + len(latents[-1]), chunk.note
    joined = {name: torch.cat(gram) for name, gram in grams.items()}
    return ReferenceRun(states, torch.cat(latents), joined, residual_bytes)


def reference_chunks(
    denoiser: BatchedDenoiser,
    form: LinearForm,
    journal: Journal,
    label: str,
    recorded: Recorded,
    spans: Sequence[Span] | None = None,
    elsewhere: Elsewhere | None = None,
) -> Iterator[Chunk]:
    """Yield the chunks `spans` of a reference run, by default all. The rest is that of `reference_run`."""
    spans = chunk_spans(journal, denoiser.samples) if spans is None else spans

    def run_chunk(first: int, last: int) -> tuple[Mapping[str, Tensor], int]:
        # Unstacked: there is one candidate, and padding would only cost.
        part = denoiser.unstacked(denoiser.conditions.part(first, last))
        chunk = _run(part, form, journal.folder, recorded.payloads, bar.advance)
        tensors = {"states": chunk.states.to(recorded.dtype), "latents": chunk.latents}
        tensors |= {f"gram {name}": gram for name, gram in chunk.gram.items()}
        return tensors, chunk.residual_bytes

    names = ["states", "latents", *(f"gram {name}" for name in recorded.payloads)]
    with progress(label, len(spans) * form.steps) as bar:
        for chunk in stored_chunks(journal, label, denoiser.samples, names, run_chunk, spans, elsewhere):
            denoiser.forwards += form.steps * len(chunk.tensors["latents"]) * len(denoiser.branches)
            for _ in range(form.steps if chunk.replayed or elsewhere is not None else 0):
                bar.advance(replayed=chunk.replayed)
            yield chunk


def _run(
    denoiser: BatchedDenoiser,
    form: LinearForm,
    folder: Path,
    payloads: Sequence[Payload],
    advance: Callable[[], object],
) -> ReferenceRun:
    trajectory = _ReferenceTrajectory(denoiser, form, folder, payloads)
    states = [trajectory.latents]
    for _ in range(form.steps):
        take_step(denoiser, [trajectory])
        states.append(trajectory.latents)
        advance()
    gram: dict[str, Tensor] = {
        payload: torch.stack([_gram(steps) for steps in branches.values()], dim=1)
        for payload, branches in trajectory.recorded.items()
    }
    return ReferenceRun(torch.stack(states), states[-1], gram, trajectory.residual_bytes)


def _gram(cached: list[Tensor]) -> Tensor:
    # One sample and some of its values at a time: the residuals of a whole run of a real model are gigabytes.
    for index, tensor in enumerate(cached):
        if tensor.shape != cached[0].shape:
            raise UnsupportedModel(
                f"denoiser: compute caches a tensor of shape {tuple(cached[0].shape)} at step 0 and of "
                f"{tuple(tensor.shape)} at step {index}",
                remedy="cache a tensor of one shape at all steps",
            )
    matrices = []
    for sample in range(len(cached[0])):
        steps = [step[sample].flatten() for step in cached]
        products = torch.zeros(len(steps), len(steps), dtype=torch.float64)
        for first in range(0, len(steps[0]), _VALUES):
            flat = torch.stack([step[first : first + _VALUES].float() for step in steps])
            products += (flat @ flat.T).double()
        matrices.append(products / len(steps[0]))
    return torch.stack(matrices)
