"""What calibration keeps on disk, and what it makes of it on the next call."""

import pytest
import torch

from budc.compiler.evaluation.pipeline_rollout import PipelineRollout
from budc.compiler.evaluation.reference import encode_samples, prompt_set, stored_latents
from budc.compiler.rollouts.policies import full_policy
from budc.compiler.storage import tensors
from budc.policies.samples import Sample
from budc.schema.errors import JournalCorrupt

BRANCHES = ("cond", "uncond")


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Two samples a file, so that three prompts make two files."""
    monkeypatch.setattr(tensors, "CHUNK_SIZE", 2)


def test_a_resumed_part_is_read_whatever_batch_the_device_takes_now(model, sampler, reference, journal):
    policy = full_policy(sampler.steps, BRANCHES)
    first = stored_latents(
        PipelineRollout(model, batch=1), policy, sampler, reference.conditions, journal, "again"
    )
    resumed = PipelineRollout(model, batch=16)
    second = stored_latents(resumed, policy, sampler, reference.conditions, journal, "again")
    assert len(first) == len(reference.conditions) == 3
    assert torch.equal(first, second)
    assert resumed.forwards == sampler.steps * len(BRANCHES) * 3


def test_only_what_is_missing_is_rolled_out(model, sampler, reference, journal, monkeypatch):
    policy = full_policy(sampler.steps, BRANCHES)
    whole, rolled = PipelineRollout._roll, []

    def stopping(self, policy, sampler, conditions):
        if len(rolled) == 1:
            raise KeyboardInterrupt
        rolled.append(len(conditions))
        return whole(self, policy, sampler, conditions)

    monkeypatch.setattr(PipelineRollout, "_roll", stopping)
    with pytest.raises(KeyboardInterrupt):
        stored_latents(PipelineRollout(model), policy, sampler, reference.conditions, journal, "stopped")
    rolled.clear()
    latents = stored_latents(
        PipelineRollout(model), policy, sampler, reference.conditions, journal, "stopped"
    )
    assert rolled == [1], "the first part has two samples and stands"
    assert len(latents) == 3


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_part_that_is_not_what_was_written_is_refused(model, sampler, reference, journal, damage):
    policy = full_policy(sampler.steps, BRANCHES)
    stored_latents(PipelineRollout(model), policy, sampler, reference.conditions, journal, "damaged")
    path = journal.folder / "damaged-0-2.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(data if damage == "flip" else data[:-5])
    with pytest.raises(JournalCorrupt, match="damaged-0-2"):
        stored_latents(PipelineRollout(model), policy, sampler, reference.conditions, journal, "damaged")


def test_a_prompt_set_is_named_by_prompts_negative_prompts_and_noise(reference):
    samples = reference.samples
    others = [
        samples[:2],
        [sample._replace(seed=sample.seed + 1) for sample in samples],
        [sample._replace(negative="blurred") for sample in samples],
        [samples[0]._replace(negative="blurred"), *samples[1:]],
    ]
    assert reference.prompt_set() == prompt_set(samples)
    assert len({prompt_set(other).digest for other in (samples, *others)}) == 5
    assert prompt_set(samples[:2]).size == 2


def test_each_sample_is_encoded_with_its_own_negative_prompt(model, reference):
    other = reference.samples[1]._replace(negative="a red circle")
    embeddings = encode_samples(model, [reference.samples[0], other]).embeddings
    expected = reference.conditions.embeddings
    assert torch.equal(embeddings["cond"], expected["cond"][:2])
    assert torch.equal(embeddings["uncond"][0], expected["uncond"][0])
    assert not torch.equal(embeddings["uncond"][1], expected["uncond"][1])


def test_text_encoder_and_vae_do_not_outlive_their_use(model, monkeypatch):
    import weakref

    from diffusers import AutoencoderKLWan
    from transformers import UMT5EncoderModel

    alive = []
    for owner in (UMT5EncoderModel, AutoencoderKLWan):
        load = owner.from_pretrained.__func__

        def remembering(cls, *args, load=load, **kwargs):
            loaded = load(cls, *args, **kwargs)
            alive.append(weakref.ref(loaded))
            return loaded

        monkeypatch.setattr(owner, "from_pretrained", classmethod(remembering))
    model.adapter.encode(model.folder, model.profile, [Sample("a red circle", "", 0)], model.device)
    decode = model.adapter.decoder(model.folder, model.profile, model.device)
    assert len(alive) == 2
    del decode
    import gc

    gc.collect()
    assert [reference() for reference in alive] == [None, None]
