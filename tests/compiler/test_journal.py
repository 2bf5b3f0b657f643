import pytest

from budc.compiler.journal import Journal
from budc.schema.errors import JournalBusy, JournalCorrupt, OutputError


def fill(folder, count=3):
    with Journal(folder, "print") as journal:
        for index in range(count):
            journal.put(f"k{index}", index / 3)
    return folder / "journal.jsonl"


def test_records_survive_to_the_last_bit(tmp_path):
    fill(tmp_path / "j")
    with Journal(tmp_path / "j", "print") as journal:
        assert journal.records == {"k0": 0.0, "k1": 1 / 3, "k2": 2 / 3}


def test_every_torn_tail_loses_one_record_at_most(tmp_path):
    path = fill(tmp_path / "j")
    data = path.read_bytes()
    last = data.rstrip(b"\n").rfind(b"\n") + 1
    for cut in range(last, len(data)):
        path.write_bytes(data[:cut])
        with Journal(tmp_path / "j", "print") as journal:
            assert set(journal.records) == {"k0", "k1"}
            journal.put("k2", 5)
        with Journal(tmp_path / "j", "print") as journal:
            assert journal.records["k2"] == 5


def test_a_flipped_bit_in_the_middle_is_refused(tmp_path):
    path = fill(tmp_path / "j")
    data = bytearray(path.read_bytes())
    data[data.index(b"k1")] ^= 1
    path.write_bytes(data)
    with pytest.raises(JournalCorrupt, match="line 3"):
        Journal(tmp_path / "j", "print")
    assert path.read_bytes() == data


def test_the_journal_of_another_compile_is_refused(tmp_path):
    fill(tmp_path / "j")
    with pytest.raises(JournalCorrupt, match="another compile"):
        Journal(tmp_path / "j", "other")


def test_two_processes_cannot_share_it(tmp_path):
    with Journal(tmp_path / "j", "print"), pytest.raises(JournalBusy):
        Journal(tmp_path / "j", "print")
    with Journal(tmp_path / "j", "print") as journal:
        assert journal.records == {}


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        Journal(tmp_path / "file" / "j", "print")
