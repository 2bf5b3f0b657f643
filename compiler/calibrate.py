"""Pass 2, calibrate: prompts become embeddings, noise and the full run's final latents.

Text encoder and VAE are in memory only while they are needed. What the full runs produced is kept in the
journal's folder, batch by batch, so a killed compile never runs them twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from budc.compiler.journal import Journal
from budc.compiler.progress import progress
from budc.compiler.rollout import Conditions, Roller, full_policy
from budc.schema.canonical import digest
from budc.schema.files import write_atomic
from budc.schema.policy import Policy, PromptSet, SamplerBinding

CALIBRATION_SEED = 10_000
HELD_OUT_SEED = 20_000
"""First noise seed of either set; prompt i starts from seed + i, so the two sets share no noise."""


@dataclass(frozen=True)
class Reference:
    """A prompt set with the full run's final latents, (N, ...)."""

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    conditions: Conditions
    latents: Tensor

    def prompt_set(self) -> PromptSet:
        """Name the set by content: prompts and noise seeds."""
        return prompt_set(self.prompts, self.seeds)


def prompt_set(prompts: Sequence[str], seeds: Sequence[int]) -> PromptSet:
    """Return the digest and size of prompts with their noise seeds."""
    return PromptSet(digest=digest({"prompts": list(prompts), "seeds": list(seeds)}), size=len(prompts))


def calibrate(
    roller: Roller,
    sampler: SamplerBinding,
    prompts: Sequence[str],
    first_seed: int,
    journal: Journal,
    label: str,
) -> Reference:
    """Encode prompts, draw noise and run the full sampler on every one, resuming from the journal."""
    model = roller.model
    seeds = tuple(first_seed + index for index in range(len(prompts)))
    conditions = Conditions(
        model.adapter.encode(model.folder, model.profile, prompts, model.device),
        model.adapter.noise(model.folder, model.profile, seeds),
    )
    policy = full_policy(sampler.steps, model.profile.branches)
    latents = kept_latents(roller, policy, sampler, conditions, journal, label)
    return Reference(tuple(prompts), seeds, conditions, latents)


def kept_latents(
    roller: Roller,
    policy: Policy,
    sampler: SamplerBinding,
    conditions: Conditions,
    journal: Journal,
    label: str,
) -> Tensor:
    """Roll out a policy over a prompt set once per compile: each batch is written as it is finished.

    The forwards that a resumed batch cost are counted as if they had been spent now.
    """
    parts: list[Tensor] = []
    size = roller.batch
    with progress(label, -(-len(conditions) // size)) as bar:
        for first in range(0, len(conditions), size):
            key = f"{label} {first}"
            path = journal.folder / f"{label.replace(' ', '-')}-{first}.safetensors"
            spent = journal.get(key)
            if spent is not None and path.is_file():
                parts.append(load_file(path)["latents"])
                roller.forwards += spent
            else:
                before = roller.forwards
                part = roller.roll(
                    policy, sampler, conditions.part(first, min(first + size, len(conditions))), bar
                )
                write_atomic(path, save({"latents": part.contiguous()}))
                journal.put(key, roller.forwards - before)
                parts.append(part)
            bar.advance()
    return torch.cat(parts)
