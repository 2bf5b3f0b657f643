"""Micro-batches: what runs together when memory runs out."""

from itertools import chain

import pytest
import torch

from budc.compiler.denoisers.microbatches import MicroBatches
from budc.schema.errors import DeviceMemory


class Device:
    """Has memory for `room` samples, and for `spared` more once `make_room` was asked."""

    def __init__(self, room, spared=0):
        self.room, self.spared = room, spared
        self.tried = []

    def work(self, first, last):
        self.tried.append((first, last))
        if last - first > self.room:
            raise torch.cuda.OutOfMemoryError("no room")
        return list(range(first, last))

    def make_room(self):
        self.room, new, self.spared = self.room + self.spared, self.spared > 0, 0
        return new


@pytest.mark.parametrize(
    ("room", "spared", "tried"),
    [
        (8, 0, [(0, 4), (4, 6)]),
        (2, 0, [(0, 4), (0, 2), (2, 4), (4, 6)]),
        (1, 0, [(0, 4), (0, 2), (0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6)]),
        (1, 3, [(0, 4), (0, 4), (4, 6)]),
        (1, 1, [(0, 4), (0, 4), (0, 2), (2, 4), (4, 6)]),
    ],
)
def test_there_are_as_few_micro_batches_as_fit(room, spared, tried):
    device = Device(room, spared)
    microbatches = MicroBatches(4, make_room=device.make_room)
    assert list(chain.from_iterable(microbatches.run(6, device.work))) == list(range(6))
    assert device.tried == tried
    assert microbatches.at_once == max(last - first for first, last in tried[-2:])


def test_what_did_not_fit_once_is_not_tried_again():
    device = Device(2)
    microbatches = MicroBatches(4, make_room=device.make_room)
    microbatches.run(4, device.work)
    device.tried.clear()
    microbatches.run(4, device.work)
    assert device.tried == [(0, 2), (2, 4)]


def test_the_new_size_is_told_and_sizes_that_cannot_fit_are_not_tried():
    device, told = Device(2), []
    microbatches = MicroBatches(32)
    microbatches.run(3, device.work, halved=told.append)
    assert device.tried == [(0, 3), (0, 2), (2, 3)]
    assert told == [2]


def test_the_caller_may_say_how_many_run_together():
    device, told = Device(2), []
    microbatches = MicroBatches(4)

    def size(first):
        return min(microbatches.at_once, 3 - first % 3)

    results = microbatches.run(6, device.work, size=size, halved=told.append)
    assert list(chain.from_iterable(results)) == list(range(6))
    assert device.tried == [(0, 3), (0, 2), (2, 3), (3, 5), (5, 6)]
    assert told == [2]


def test_one_sample_that_does_not_fit_is_an_error():
    device = Device(0)
    with pytest.raises(DeviceMemory, match="one sample does not fit") as caught:
        MicroBatches(4).run(4, device.work)
    assert "device with more memory" in caught.value.remedy
    with pytest.raises(DeviceMemory) as caught:
        MicroBatches(4, remedy="drop it").run(4, device.work)
    assert caught.value.remedy == "drop it"


def test_other_errors_are_not_taken_for_it():
    def broken(first, last):
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        MicroBatches(4).run(4, broken)
