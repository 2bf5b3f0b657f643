"""The reference run through the pipeline's own scheduler: prompts become embeddings, noise and final latents.

The text encoder is in memory only while it is needed. Final latents are kept in the journal's folder, part by part, so
that a compile that was killed rolls out what was missing and nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from budc.compiler.denoisers.conditioning import Conditioning
from budc.compiler.evaluation.pipeline_rollout import PipelineRollout
from budc.compiler.models.model import LoadedModel
from budc.compiler.rollouts.policies import full_policy
from budc.compiler.storage.journal import Journal
from budc.compiler.storage.tensors import Chunk, Span, chunk_spans, stored_chunks
from budc.policies.samples import Sample, common_negative
from budc.progress import progress
from budc.runtimes.sampling.device_memory import device_memory, free_unused_memory
from budc.schema.canonical import digest
from budc.schema.policy import Policy, PromptSet, SamplerBinding


@dataclass(frozen=True)
class ReferenceSet:
    """Samples with the final latents (N, ...) of their reference run."""

    samples: tuple[Sample, ...]
    conditions: Conditioning
    latents: Tensor

    def prompt_set(self) -> PromptSet:
        """Name the set by content."""
        return prompt_set(self.samples)


def prompt_set(samples: Sequence[Sample]) -> PromptSet:
    """Name a set by content: prompts, negative prompts (one text if all have the same), noise seeds, images if any."""
    common = common_negative(samples)
    content = {
        "prompts": [sample.prompt for sample in samples],
        "negative": [sample.negative for sample in samples] if common is None else common,
        "seeds": [sample.seed for sample in samples],
    }
    if images := [sample.image.digest for sample in samples if sample.image is not None]:
        content["images"] = images
    return PromptSet(digest=digest(content), size=len(samples))


def reference_set(
    rollout: PipelineRollout,
    sampler: SamplerBinding,
    samples: Sequence[Sample],
    journal: Journal,
    label: str,
    conditions: Conditioning | None = None,
) -> ReferenceSet:
    """Run every step of the sampler on samples, resuming from the journal.

    `conditions` are the samples encoded; without them they are encoded here.
    """
    conditions = encode_samples(rollout.model, samples) if conditions is None else conditions
    policy = full_policy(sampler.steps, rollout.model.profile.branches)
    latents = stored_latents(rollout, policy, sampler, conditions, journal, label)
    return ReferenceSet(tuple(samples), conditions, latents)


def encode_prompts(model: LoadedModel, prompts: Sequence[str], seeds: Iterable[int]) -> Conditioning:
    """Encode prompts with the profile's negative prompt and draw the noise of as many seeds."""
    negative = model.profile.prompts.negative
    pairs = zip(prompts, seeds, strict=True)
    return encode_samples(model, [Sample(prompt, negative, seed) for prompt, seed in pairs])


def encode_samples(model: LoadedModel, samples: Sequence[Sample]) -> Conditioning:
    """Encode the prompts and images of samples and draw their noise. Encoders are loaded for it, and released.

    Raises:
        DeviceMemory: a prompt or an image cannot be encoded in the device's memory.
        UsageError: an image cannot be read any more.
    """
    model.denoisers.offload()
    with device_memory("encoding a sample"):
        embeddings = model.adapter.encode(model.folder, model.profile, samples, model.device)
    free_unused_memory()
    seeds = [sample.seed for sample in samples]
    return Conditioning(embeddings, model.adapter.noise(model.folder, model.profile, seeds))


def stored_latents(
    rollout: PipelineRollout,
    policy: Policy,
    sampler: SamplerBinding,
    conditions: Conditioning,
    journal: Journal,
    label: str,
) -> Tensor:
    """Return the final latents (N, ...) of a policy on a prompt set; each chunk is on disk as soon as it is finished.

    A chunk that is on disk already is read, and its forwards are counted as if they had been spent now.

    Raises:
        JournalCorrupt: a chunk on disk is not what was written.
    """
    chunks = latent_chunks(rollout, policy, sampler, conditions, journal, label)
    return torch.cat([chunk.tensors["latents"] for chunk in chunks])


def latent_chunks(
    rollout: PipelineRollout,
    policy: Policy,
    sampler: SamplerBinding,
    conditions: Conditioning,
    journal: Journal,
    label: str,
    spans: Sequence[Span] | None = None,
) -> Iterator[Chunk]:
    """Yield the chunks `spans` of these latents, by default all. Raises as `stored_latents` does."""
    spans = chunk_spans(journal, len(conditions)) if spans is None else spans
    elsewhere = None if rollout.workers is None else partial(rollout.workers.latents, label, policy, sampler)

    def roll_out(first: int, last: int) -> tuple[Mapping[str, Tensor], int]:
        before, started = rollout.forwards, time.perf_counter()
        latents = rollout.run(policy, sampler, conditions.part(first, last), bar)
        taken = (time.perf_counter() - started) / (last - first)
        rollout.seconds.setdefault(label, []).append((last - first, taken))
        return {"latents": latents}, rollout.forwards - before

    with progress(label, len(spans)) as bar:
        for chunk in stored_chunks(journal, label, len(conditions), ["latents"], roll_out, spans, elsewhere):
            if chunk.replayed or elsewhere is not None:
                rollout.forwards += chunk.note
            bar.advance(replayed=chunk.replayed)
            yield chunk
