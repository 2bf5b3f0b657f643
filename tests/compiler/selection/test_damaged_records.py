"""A record with a good checksum that this search cannot have written is refused, by whichever part reads it."""

import json
import re
import zlib
from copy import deepcopy

import pytest

from budc.compiler.selection.calibration import Calibration
from budc.compiler.selection.finder import Finder
from budc.compiler.storage.journal import Journal
from budc.schema.errors import JournalCorrupt

FOREIGN = [None, True, -1, [], {}]


@pytest.fixture
def search(task, tmp_path):
    """Search and align on a toy in one folder; `batch` is noted as if memory had not sufficed."""
    wanted = task(steps=4, nfe=2, samples=4, align=True)

    def search():
        with Journal(tmp_path / "search", "print") as journal:
            if "batch" not in journal.records:
                journal.put("batch", 4)
            return Finder(Calibration(wanted, journal)).find(wanted)

    search.path = tmp_path / "search" / "journal.jsonl"
    return search


def read(path):
    header, *lines = path.read_text().splitlines()
    return header, [json.loads(line.partition(" ")[2]) for line in lines]


def write(path, header, records):
    bodies = [json.dumps(record) for record in records]
    path.write_text("\n".join([header, *(f"{zlib.crc32(body.encode()):08x} {body}" for body in bodies), ""]))


def changed_values(value):
    """Yield a value as something else, and with each of its parts taken away or turned into something else."""
    yield 7 if isinstance(value, str) else "x"
    if isinstance(value, dict):
        for key, part in value.items():
            yield {name: other for name, other in value.items() if name != key}
            yield from ({**value, key: other} for other in changed_values(part))
    elif isinstance(value, list) and value:
        yield value[1:]
        yield from ([other, *value[1:]] for other in changed_values(value[0]))


def shape(value):
    """Return what a value looks like, numbers and texts aside."""
    return re.sub(r'-?[\d.]+(e-?\d+)?|"[^"]*"', "_", json.dumps(value))[:60]


def emptied(other, value):
    """Return whether `other` is `value` without some of the optimiser's state."""
    if not isinstance(value, dict) or not isinstance(other, dict) or other.keys() != value.keys():
        return other == value
    return all(
        (key == "moments" and other[key] == {}) or emptied(other[key], part) for key, part in value.items()
    )


def refusal(search):
    """Return the error that a search ends in, None if it does not."""
    try:
        search()
    except JournalCorrupt as error:
        return str(error)


@pytest.mark.usefixtures("short_search")
def test_every_record_of_a_search_is_read_as_what_it_must_be(search):
    expected = search()
    header, records = read(search.path)
    kinds = list({shape(record["v"]): number for number, record in enumerate(records)}.values())
    assert len(kinds) >= 5
    refused = 0
    for number in kinds:
        key, value = records[number]["k"], records[number]["v"]
        for other in (*FOREIGN, *changed_values(value)):
            altered = deepcopy(records)
            altered[number]["v"] = other
            write(search.path, header, altered)
            message = refusal(search)
            # A number in a number's place passes, nobody can tell that it is another one; and so does an optimiser's
            # state that is not there, which an epoch without a finite gradient leaves.
            assert message or emptied(other, value) or isinstance(other, int | float), (key, other)
            assert message is None or key in message or ".safetensors" in message
            refused += message is not None
    assert refused > 50
    write(search.path, header, records)
    assert search() == expected
