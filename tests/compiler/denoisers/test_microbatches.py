"""Turns: what is run together when memory runs out."""

from itertools import chain

import pytest
import torch

from budc.compiler.denoisers.microbatches import MicroBatches
from budc.schema.errors import DeviceMemory


class Device:
    """Has room for so many samples, and for so many more once `spare` has been asked."""

    def __init__(self, room, spared=0):
        self.room, self.spared = room, spared
        self.tried = []

    def work(self, first, last):
        self.tried.append((first, last))
        if last - first > self.room:
            raise torch.cuda.OutOfMemoryError("no room")
        return list(range(first, last))

    def spare(self):
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
def test_a_batch_takes_as_few_turns_as_fit(room, spared, tried):
    device = Device(room, spared)
    microbatches = MicroBatches(4, device.spare)
    assert list(chain.from_iterable(microbatches.run(6, device.work))) == list(range(6))
    assert device.tried == tried
    assert microbatches.at_once == max(last - first for first, last in tried[-2:])


def test_what_did_not_fit_once_is_not_tried_again():
    device = Device(2)
    microbatches = MicroBatches(4, device.spare)
    microbatches.run(4, device.work)
    device.tried.clear()
    microbatches.run(4, device.work)
    assert device.tried == [(0, 2), (2, 4)]


def test_one_sample_that_does_not_fit_is_an_error():
    device = Device(0)
    with pytest.raises(DeviceMemory, match="not even one sample") as caught:
        MicroBatches(4, device.spare).run(4, device.work)
    assert "--align" in caught.value.remedy


def test_other_errors_are_not_taken_for_it():
    def broken(first, last):
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        MicroBatches(4, lambda: False).run(4, broken)
