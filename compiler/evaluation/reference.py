"""The reference run through the pipeline's own scheduler: prompts become embeddings, noise and final latents.

The text encoder is in memory only while it is needed. Final latents are kept in the journal's folder, part by part, so
that a compile that was killed rolls out what was missing and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from budc.compiler.denoisers.conditioning import Conditioning
from budc.compiler.evaluation.pipeline_rollout import PipelineRollout
from budc.compiler.models.model import LoadedModel
from budc.compiler.rollouts.policies import full_policy
from budc.compiler.storage.journal import Journal
from budc.compiler.storage.tensors import shard_spans, stored_shards
from budc.progress import progress
from budc.schema.canonical import digest
from budc.schema.policy import Policy, PromptSet, SamplerBinding

CALIBRATION_SEED = 10_000
HELD_OUT_SEED = 20_000
"""First noise seed of either set; prompt i starts from seed + i, so the two sets share no noise."""


@dataclass(frozen=True)
class ReferenceSet:
    """A prompt set with the final latents (N, ...) of its reference run."""

    prompts: tuple[str, ...]
    negative: str
    seeds: tuple[int, ...]
    conditions: Conditioning
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


def reference_set(
    rollout: PipelineRollout,
    sampler: SamplerBinding,
    prompts: Sequence[str],
    first_seed: int,
    journal: Journal,
    label: str,
) -> ReferenceSet:
    """Encode prompts, draw noise and run every step of the sampler, resuming from the journal."""
    model = rollout.model
    seeds = tuple(first_seed + index for index in range(len(prompts)))
    conditions = encode_prompts(model, prompts, seeds)
    policy = full_policy(sampler.steps, model.profile.branches)
    latents = stored_latents(rollout, policy, sampler, conditions, journal, label)
    return ReferenceSet(tuple(prompts), model.profile.prompts.negative, seeds, conditions, latents)


def encode_prompts(model: LoadedModel, prompts: Sequence[str], seeds: Sequence[int]) -> Conditioning:
    """Encode prompts and draw the noise of as many seeds."""
    return Conditioning(
        model.adapter.encode(model.folder, model.profile, prompts, model.device),
        model.adapter.noise(model.folder, model.profile, seeds),
    )


def stored_latents(
    rollout: PipelineRollout,
    policy: Policy,
    sampler: SamplerBinding,
    conditions: Conditioning,
    journal: Journal,
    label: str,
) -> Tensor:
    """Return the final latents (N, ...) of a policy on a prompt set; each part is on disk as soon as it is finished.

    A part that is on disk already is read, and its forwards are counted as if they had been spent now.

    Raises:
        JournalCorrupt: a part on disk is not what was written.
    """

    def roll_out(first: int, last: int) -> tuple[Mapping[str, Tensor], Mapping[str, int]]:
        before = rollout.forwards
        latents = rollout.run(policy, sampler, conditions.part(first, last), bar)
        return {"latents": latents}, {"forwards": rollout.forwards - before}

    latents: list[Tensor] = []
    with progress(label, len(shard_spans(len(conditions)))) as bar:
        for part in stored_shards(journal, label, len(conditions), roll_out):
            latents.append(part.tensors["latents"])
            if part.replayed:
                rollout.forwards += part.notes["forwards"]
            bar.advance(replayed=part.replayed)
    return torch.cat(latents)
