"""Augmentation: prompts paired with each other's noise, so that training has more samples than there are prompts.

On two dozen samples, training overfits within a few epochs. Another noise makes another sample of the same prompt, at
the cost of one reference run. The noise is another prompt's, so nothing here needs to know how noise is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from budc.compiler.denoisers.batched import BatchedDenoiser
from budc.compiler.denoisers.conditioning import Conditioning, map_condition
from budc.compiler.rollouts.linear_form import LinearForm
from budc.compiler.rollouts.policies import full_policy
from budc.compiler.rollouts.policy import rollout_policy
from budc.compiler.storage.journal import Journal
from budc.compiler.storage.tensors import stored_chunks
from budc.compiler.training.dataset import TrainingSet
from budc.progress import progress

PAIRINGS = 3
"""Samples of every prompt, each with another noise."""


def paired(conditions: Conditioning, times: int) -> Conditioning:
    """Return N prompts `times` over (times · N, ...), the k-th time with the noise of the prompt k before it."""

    def repeated(tensor: Tensor) -> Tensor:
        return torch.cat([tensor] * times)

    noise = torch.cat([conditions.noise.roll(shift, 0) for shift in range(times)])
    return Conditioning(
        {name: map_condition(value, repeated) for name, value in conditions.embeddings.items()}, noise
    )


def paired_training_set(
    denoiser: BatchedDenoiser,
    form: LinearForm,
    latents: Tensor,
    journal: Journal,
    label: str,
    times: int = PAIRINGS,
) -> TrainingSet:
    """Return the prompts of `denoiser`, each with `times` noises, or with as many as there are prompts.

    `latents` (N, ...) are the final latents of the reference run from the prompts' own noise. The other reference runs
    are made here, and are on disk under `label` as soon as they are finished.

    Raises:
        JournalCorrupt: a chunk on disk is not what was written.
        DeviceMemory: one sample does not fit into the memory of the device.
    """
    own = denoiser.samples
    conditions = paired(denoiser.conditions, min(times, own))
    policy = full_policy(form.steps, denoiser.branches)
    others = conditions.part(own, len(conditions))

    def run_chunk(first: int, last: int) -> tuple[Mapping[str, Tensor], int]:
        return {"latents": rollout_policy(denoiser.unstacked(others.part(first, last)), form, policy)}, 0

    final = [latents]
    with progress(label, len(others)) as bar:
        for chunk in stored_chunks(journal, label, len(others), ["latents"], run_chunk):
            final.append(chunk.tensors["latents"])
            for _ in range(len(final[-1])):
                bar.advance(replayed=chunk.replayed)
    return TrainingSet(conditions, torch.cat(final))
