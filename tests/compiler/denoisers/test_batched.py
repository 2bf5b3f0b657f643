"""Batches of a denoiser: what runs together, what is counted, and what happens when memory runs out."""

from dataclasses import dataclass, field

import pytest
import torch

from budc.compiler.denoisers.batched import BatchedDenoiser
from budc.compiler.denoisers.conditioning import Conditioning
from budc.schema.errors import DeviceMemory

TIME = torch.tensor(500.0)
CPU = torch.device("cpu")


@dataclass
class Recorder:
    """A denoiser that records its batches, and has memory for `room` rows."""

    room: int = 10**6
    weights: dict[str, float] = field(default_factory=lambda: {"cond": 1.0})
    device: torch.device = CPU
    batches: list[torch.Tensor] = field(default_factory=list)

    def compute(self, latents, timestep, condition):
        if len(latents) > self.room:
            raise torch.cuda.OutOfMemoryError("no room")
        self.batches.append(latents[:, 0].clone())
        return latents * 10 + condition, (latents * 100 + condition).half()

    def reuse(self, residual, latents, timestep, condition):
        if len(latents) > self.room:
            raise torch.cuda.OutOfMemoryError("no room")
        self.batches.append(latents[:, 0].clone())
        return residual + latents + condition

    @property
    def sizes(self):
        return [len(batch) for batch in self.batches]


def network(samples, **options):
    denoiser = options.pop("denoiser", None) or Recorder()
    embeddings = {"cond": torch.arange(float(samples))[:, None]}
    return BatchedDenoiser(denoiser, Conditioning(embeddings, torch.zeros(samples, 1)), **options)


def rows(count):
    return torch.arange(1000.0, 1000.0 + count)[:, None]


@pytest.mark.parametrize(
    ("samples", "batch", "stack", "candidates", "sizes"),
    [
        (3, 32, False, 1, [3]),
        (3, 32, False, 2, [3, 3]),
        (5, 2, False, 2, [2, 2, 1, 2, 2, 1]),
        # Whole candidates only, and always as many: two fit into 8 rows of 3 prompts.
        (3, 8, True, 1, [6]),
        (3, 8, True, 2, [6]),
        (3, 8, True, 3, [6, 6]),
        # Not two of them fit: as if there were no stacking.
        (3, 5, True, 2, [3, 3]),
    ],
)
def test_batches_do_not_depend_on_how_many_candidates_there_are(samples, batch, stack, candidates, sizes):
    batched = network(samples, batch=batch, stack=stack)
    latents = rows(samples * candidates)
    velocity, residual = batched.compute("cond", latents, TIME)
    assert batched.denoiser.sizes == sizes
    condition = torch.arange(float(samples))[:, None].repeat(candidates, 1)
    assert torch.equal(velocity, latents * 10 + condition)
    assert torch.equal(residual, (latents * 100 + condition).half()), "a residual keeps its dtype"
    assert batched.forwards == samples * candidates, "what is padded is not counted"


def test_padding_repeats_the_last_row_and_is_cut_off():
    batched = network(2, batch=8, stack=True)
    velocity, _ = batched.compute("cond", rows(2), TIME)
    assert batched.denoiser.batches[0].tolist() == [1000.0] + [1001.0] * 7
    assert len(velocity) == 2


def test_reused_steps_are_batched_alike_and_cost_nothing():
    batched = network(3, batch=2, stack=False)
    velocity = batched.reuse("cond", rows(3), rows(3), TIME)
    assert batched.denoiser.sizes == [2, 1]
    assert torch.equal(velocity, 2 * rows(3) + torch.arange(3.0)[:, None])
    assert batched.forwards == 0


def test_nothing_is_recorded_for_a_backward_pass():
    batched = network(2)
    batched.denoiser.compute = lambda latents, *_: (latents.clone().requires_grad_(True) * 2, latents)
    assert not batched.compute("cond", rows(2), TIME)[0].requires_grad


@pytest.mark.parametrize(("stack", "sizes"), [(False, [3]), (True, [12, 6, 3])])
def test_memory_that_runs_out_halves_the_batch_and_loses_nothing(stack, sizes):
    told = []
    batched = network(6, denoiser=Recorder(room=3), batch=24, halved=told.append, stack=stack)
    velocity, _ = batched.compute("cond", rows(12), TIME)
    assert told == sizes
    assert batched.batch == 3
    assert torch.equal(velocity, rows(12) * 10 + torch.arange(6.0)[:, None].repeat(2, 1))
    assert batched.denoiser.sizes == [3, 3, 3, 3]
    assert batched.forwards == 12
    batched.reuse("cond", rows(12), rows(12), TIME)
    assert told == sizes, "the batch stays small"


def test_an_unstacked_part_shares_the_batch_size_and_counts_its_own_forwards():
    told = []
    whole = network(6, denoiser=Recorder(room=2), batch=24, halved=told.append, stack=True)
    part = whole.unstacked(whole.conditions.part(1, 5))
    velocity, _ = part.compute("cond", rows(4), TIME)
    assert torch.equal(velocity, rows(4) * 10 + torch.arange(1.0, 5.0)[:, None])
    assert told == [3, 1]
    assert whole.batch == part.batch == 1
    assert (whole.forwards, part.forwards) == (0, 4)


def test_a_sample_that_does_not_fit_is_an_error_of_its_own():
    with pytest.raises(DeviceMemory, match="one sample"):
        network(2, denoiser=Recorder(room=0)).compute("cond", rows(2), TIME)
