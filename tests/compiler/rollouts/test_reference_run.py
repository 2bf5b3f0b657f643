"""The reference run: its states and Gram matrices, and chunks that survive a kill."""

import pytest
import torch

from budc.compiler.rollouts import reference_run as reference_runs
from budc.compiler.rollouts.reference_run import Recorded, reference_run
from budc.compiler.storage import spill, tensors
from budc.schema.errors import JournalCorrupt
from budc.schema.policy import PAYLOADS


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Two samples a file."""
    monkeypatch.setattr(tensors, "CHUNK_SIZE", 2)


def test_states_and_gram_matrices_are_of_what_was_computed(bench):
    toy = bench(steps=5, samples=3, solver="unipc")
    denoiser, conditions = toy.network.denoiser, toy.network.conditions
    velocities, payloads = [], {name: [] for name in PAYLOADS}
    for step, timestep in enumerate(toy.form.timesteps.float()):
        state = toy.form.latents(step, conditions.noise, velocities)
        torch.testing.assert_close(toy.run.states[step], state)
        pairs = [denoiser.compute(state, timestep, conditions.embeddings[name]) for name in denoiser.weights]
        payloads["velocity"].append(torch.stack([velocity for velocity, _ in pairs]))
        payloads["trunk-residual"].append(torch.stack([residual for _, residual in pairs]))
        velocities.append(3.0 * pairs[0][0] - 2.0 * pairs[1][0])
    torch.testing.assert_close(toy.run.latents, toy.form.latents(5, conditions.noise, velocities))
    for name in PAYLOADS:
        flat = torch.stack(payloads[name]).flatten(3).double()
        expected = torch.einsum("ibnd,jbnd->nbij", flat, flat) / flat.shape[-1]
        torch.testing.assert_close(toy.run.gram[name], expected, rtol=1e-5, atol=1e-6)
    assert toy.run.residual_bytes == 2 * 3 * 4
    assert toy.network.forwards == 5 * 3 * 2


def test_only_what_is_missing_is_run_again_and_both_are_counted(bench, toys, journal):
    toy = bench(steps=4, samples=5)

    class Stopping(toys.toy):
        def compute(self, *arguments):
            if len(self.calls) == 10:
                raise KeyboardInterrupt
            return super().compute(*arguments)

    network = toy.over()
    network.denoiser = Stopping()
    with pytest.raises(KeyboardInterrupt):
        reference_run(network, toy.form, journal, "again")
    network = toy.over()
    network.denoiser = toys.toy()
    run = reference_run(network, toy.form, journal, "again")
    assert network.denoiser.calls == [2] * 8 + [1] * 8, "the first chunk of two prompts is not run again"
    assert network.forwards == 4 * 2 * 5
    assert torch.equal(run.states, toy.run.states)
    assert all(torch.equal(run.gram[name], toy.run.gram[name]) for name in PAYLOADS)


@pytest.mark.parametrize("damage", ["flip", "remove"])
def test_a_chunk_that_is_not_what_was_written_is_refused(bench, journal, damage):
    toy = bench(steps=4, samples=3)
    reference_run(toy.over(), toy.form, journal, "some run")
    path = journal.folder / "some-run-2-3.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.unlink() if damage == "remove" else path.write_bytes(data)
    with pytest.raises(JournalCorrupt, match="some-run-2-3"):
        reference_run(toy.over(), toy.form, journal, "some run")


def test_a_batch_that_was_halved_stays_so(bench, toys, journal):
    toy = bench(steps=3, samples=4)

    class Small(toys.toy):
        def compute(self, latents, *arguments):
            if len(latents) > 1:
                raise torch.cuda.OutOfMemoryError("no room")
            return super().compute(latents, *arguments)

    told = []
    network = toy.over(batch=4, halved=told.append)
    network.denoiser = Small()
    run = reference_run(network, toy.form, journal, "small")
    assert told == [1], "a chunk has two samples: one at a time is the next size to try"
    assert network.batch == 1
    torch.testing.assert_close(run.states, toy.run.states)


def test_a_part_of_a_run_is_that_of_its_samples(bench):
    run = bench(steps=3, samples=5).run
    part = run.part(1, 4)
    assert len(part) == 3
    assert torch.equal(part.latents, run.latents[1:4])
    assert torch.equal(part.gram["velocity"], run.gram["velocity"][1:4])


def test_states_in_half_the_memory_leave_the_final_latents_as_they_are(bench, journal):
    toy = bench(steps=4, samples=3)
    runs = [reference_run(toy.over(), toy.form, journal, "half", Recorded("bfloat16")) for _ in range(2)]
    for run in runs:
        assert run.states.dtype == torch.bfloat16
        assert torch.equal(run.states, toy.run.states.bfloat16())
        assert torch.equal(run.latents, toy.run.latents)
        assert torch.equal(run.state(4), toy.run.latents)
        assert torch.equal(run.gram["velocity"], toy.run.gram["velocity"])


def test_a_run_that_does_not_fit_into_memory_is_the_same(bench, journal, monkeypatch):
    toy = bench(steps=4, samples=3)
    monkeypatch.setattr(reference_runs, "_VALUES", 5)
    monkeypatch.setattr(spill, "RESERVE", 1.0)
    run = reference_run(toy.over(), toy.form, journal, "spilled")
    assert torch.equal(run.states, toy.run.states)
    assert torch.equal(run.latents, toy.run.latents)
    torch.testing.assert_close(run.gram, toy.run.gram)
    assert not list(journal.folder.glob("spilled-*.tmp*"))
