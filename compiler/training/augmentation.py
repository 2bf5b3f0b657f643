"""Pairings: prompts with each other's noise, so that what trains by gradient has more samples than there are prompts.

Two dozen samples are learned by heart within a few epochs. Another noise makes another sample of the same prompt, and
costs one full run; the noise is that of another prompt, so that nothing must be known of how noise is drawn.
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
from budc.compiler.storage.tensors import stored_shards
from budc.compiler.training.dataset import TrainingSet
from budc.progress import progress

PAIRINGS = 3
"""Samples of a prompt."""


def paired(conditions: Conditioning, times: int) -> Conditioning:
    """Return N prompts `times` over (times · N, ...), the k-th time with the noise of the prompt k places before."""

    def repeated(tensor: Tensor) -> Tensor:
        return torch.cat([tensor] * times)

    noise = torch.cat([conditions.noise.roll(shift, 0) for shift in range(times)])
    return Conditioning(
        {name: map_condition(value, repeated) for name, value in conditions.embeddings.items()}, noise
    )


def paired_training_set(
    network: BatchedDenoiser,
    form: LinearForm,
    latents: Tensor,
    journal: Journal,
    label: str,
    times: int = PAIRINGS,
) -> TrainingSet:
    """Return the prompts of `network` in so many pairings, or as many as there are prompts.

    `latents` (N, ...) are what the full run of the prompts with their own noise ends in. The other full runs are
    on disk as soon as they are finished.

    Raises:
        JournalCorrupt: a part on disk is not what was written.
    """
    own = network.samples
    conditions = paired(network.conditions, min(times, own))
    policy = full_policy(form.steps, network.denoiser.branches)
    others = conditions.part(own, len(conditions))

    def make(first: int, last: int) -> tuple[Mapping[str, Tensor], Mapping[str, int]]:
        return {"latents": rollout_policy(network.unstacked(others.part(first, last)), form, policy)}, {}

    found = [latents]
    with progress(label, len(others)) as bar:
        for part in stored_shards(journal, label, len(others), make):
            found.append(part.tensors["latents"])
            for _ in range(len(found[-1])):
                bar.advance(replayed=part.replayed)
    return TrainingSet(conditions, torch.cat(found))
