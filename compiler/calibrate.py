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

from budc.compiler.conditions import Conditions
from budc.compiler.journal import Journal
from budc.compiler.model import Model
from budc.compiler.progress import progress
from budc.compiler.rollout import Roller, full_policy
from budc.schema.canonical import digest
from budc.schema.errors import JournalCorrupt
from budc.schema.files import write_atomic
from budc.schema.hashing import sha256_file
from budc.schema.policy import Policy, PromptSet, SamplerBinding

CALIBRATION_SEED = 10_000
HELD_OUT_SEED = 20_000
"""First noise seed of either set; prompt i starts from seed + i, so the two sets share no noise."""

PART = 8
"""Samples a file of latents; the same whatever batch fits the device, so that a resumed compile finds them."""


@dataclass(frozen=True)
class Reference:
    """A prompt set with the full run's final latents, (N, ...)."""

    prompts: tuple[str, ...]
    negative: str
    seeds: tuple[int, ...]
    conditions: Conditions
    latents: Tensor

    def prompt_set(self) -> PromptSet:
        """Name the set by content."""
        return prompt_set(self.prompts, self.negative, self.seeds[0])


def prompt_set(prompts: Sequence[str], negative: str, first_seed: int) -> PromptSet:
    """Name a set by content: prompts, the negative prompt, noise seeds."""
    seeds = [first_seed + index for index in range(len(prompts))]
    return PromptSet(
        digest=digest({"prompts": list(prompts), "negative": negative, "seeds": seeds}), size=len(prompts)
    )


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
    conditions = drawn(model, prompts, seeds)
    policy = full_policy(sampler.steps, model.profile.branches)
    latents = kept_latents(roller, policy, sampler, conditions, journal, label)
    return Reference(tuple(prompts), model.profile.prompts.negative, seeds, conditions, latents)


def drawn(model: Model, prompts: Sequence[str], seeds: Sequence[int]) -> Conditions:
    """Encode prompts and draw the noise of as many seeds."""
    return Conditions(
        model.adapter.encode(model.folder, model.profile, prompts, model.device),
        model.adapter.noise(model.folder, model.profile, seeds),
    )


def kept_latents(
    roller: Roller,
    policy: Policy,
    sampler: SamplerBinding,
    conditions: Conditions,
    journal: Journal,
    label: str,
) -> Tensor:
    """Roll out a policy over a prompt set once per compile: each part is on disk as soon as it is finished.

    The forwards that a resumed part cost are counted as if they had been spent now.

    Raises:
        JournalCorrupt: a part on disk is not what was written.
    """
    parts: list[Tensor] = []
    spans = [(first, min(first + PART, len(conditions))) for first in range(0, len(conditions), PART)]
    with progress(label, len(spans)) as bar:
        for first, last in spans:
            key = f"{label} {first}:{last}"
            path = journal.folder / f"{label.replace(' ', '-')}-{first}-{last}.safetensors"
            known = journal.get(key)
            if known is not None:
                if not path.is_file() or sha256_file(path) != known["sha256"]:
                    raise JournalCorrupt(f"{path}: is not what was written")
                part = load_file(path)["latents"]
                roller.forwards += known["forwards"]
            else:
                before = roller.forwards
                part = roller.roll(policy, sampler, conditions.part(first, last), bar).contiguous()
                write_atomic(path, save({"latents": part}))
                journal.put(key, {"forwards": roller.forwards - before, "sha256": sha256_file(path)})
            parts.append(part)
            bar.advance(replayed=known is not None)
    return torch.cat(parts)
