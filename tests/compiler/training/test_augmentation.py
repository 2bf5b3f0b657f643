"""Prompts paired with each other's noise: which samples there are, and that each has a reference run of its own."""

import pytest
import torch

from budc.compiler.denoisers.batched import BatchedDenoiser
from budc.compiler.rollouts.reference_run import reference_run
from budc.compiler.storage import tensors
from budc.compiler.training.augmentation import PAIRINGS, paired, paired_training_set
from budc.schema.errors import JournalCorrupt


def test_every_prompt_meets_other_noises(toys):
    conditions = toys.conditions(5)
    pairs = paired(conditions, 3)
    assert len(pairs) == 15
    for name, embedding in conditions.embeddings.items():
        assert torch.equal(pairs.embeddings[name], torch.cat([embedding] * 3))
    noises = {tuple(noise.flatten().tolist()): index for index, noise in enumerate(conditions.noise)}
    met = [noises[tuple(noise.flatten().tolist())] for noise in pairs.noise]
    assert met[:5] == [0, 1, 2, 3, 4]
    assert len({(index % 5, noise) for index, noise in enumerate(met)}) == 15


def test_latents_are_those_of_a_reference_run_from_the_paired_noise(bench, journal):
    toy = bench(4)
    network, form, run = toy.network, toy.form, toy.run
    training_set = paired_training_set(network, form, run.latents, journal, "paired")
    assert len(training_set) == PAIRINGS * network.samples
    again = reference_run(
        BatchedDenoiser(network.denoiser, training_set.conditions), form, journal, "all of them"
    )
    torch.testing.assert_close(training_set.latents, again.latents, rtol=1e-5, atol=1e-6)
    assert not torch.equal(
        training_set.latents[: network.samples], training_set.latents[network.samples :][: network.samples]
    )


def test_no_sample_comes_twice_where_prompts_are_few(bench, journal):
    toy = bench(4, samples=2)
    assert len(paired_training_set(toy.network, toy.form, toy.run.latents, journal, "paired")) == 4


def test_reference_runs_are_made_once_and_guarded(bench, journal, monkeypatch):
    monkeypatch.setattr(tensors, "CHUNK_SIZE", 2)
    toy = bench(4)
    network, form, run = toy.network, toy.form, toy.run
    first = paired_training_set(network, form, run.latents, journal, "paired")
    before = sum(network.denoiser.calls)
    second = paired_training_set(network, form, run.latents, journal, "paired")
    assert sum(network.denoiser.calls) == before
    assert torch.equal(first.latents, second.latents)
    chunk = next(journal.folder.glob("paired-*.safetensors"))
    chunk.write_bytes(chunk.read_bytes()[:-1])
    with pytest.raises(JournalCorrupt, match=chunk.name):
        paired_training_set(network, form, run.latents, journal, "paired")
