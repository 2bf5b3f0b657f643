"""Which chunks a shard takes."""

import pytest

from budc.compiler.storage.journal import Journal
from budc.compiler.storage.shard import Shard, parse_shard
from budc.compiler.storage.tensors import chunk_spans


@pytest.mark.parametrize(("samples", "jobs"), [(24, 1), (24, 2), (24, 8), (5, 3), (3, 8), (1, 2)])
def test_each_sample_is_in_one_shard(tmp_path, samples, jobs):
    with Journal(tmp_path / "journal", "f", jobs) as journal:
        shards = [chunk_spans(journal, samples, Shard(number, jobs)) for number in range(1, jobs + 1)]
        taken = [sample for spans in shards for first, last in spans for sample in range(first, last)]
        assert sorted(taken) == list(range(samples))
        assert sorted(span for spans in shards for span in spans) == chunk_spans(journal, samples)
        if samples % jobs == 0:
            assert len({sum(last - first for first, last in spans) for spans in shards}) == 1


def test_a_shard_is_written_as_it_is_read():
    assert str(parse_shard(" 2/8 ")) == "2/8"
