import math
import os
import stat
import zlib

import msgspec
import pytest

from budc.compiler.storage.journal import Journal
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


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o702])
def test_a_folder_that_others_can_write_in_is_not_resumed(tmp_path, mode):
    fill(tmp_path / "j")
    (tmp_path / "j").chmod(mode)
    with pytest.raises(JournalCorrupt, match="others may write"):
        Journal(tmp_path / "j", "print")


def test_a_folder_of_another_user_is_not_resumed(tmp_path, monkeypatch):
    fill(tmp_path / "j")
    monkeypatch.setattr("os.geteuid", lambda: 4711)
    with pytest.raises(JournalCorrupt, match="another user"):
        Journal(tmp_path / "j", "print")


def test_a_journal_is_private_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        path = fill(tmp_path / "j")
    finally:
        os.umask(before)
    assert [stat.S_IMODE(item.stat().st_mode) for item in (path.parent, path)] == [0o700, 0o600]


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "folder", "linked folder"])
def test_what_a_link_leads_to_is_neither_cut_nor_appended_to(tmp_path, kind):
    precious = tmp_path / "precious"
    precious.write_text("no journal, and without an end of line")
    path = fill(tmp_path / "j")
    path.unlink()
    if kind == "link":
        path.symlink_to(precious)
    elif kind == "hard link":
        path.hardlink_to(precious)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        fill(tmp_path / "elsewhere")
        path.parent.rmdir()
        path.parent.symlink_to(tmp_path / "elsewhere")
    with pytest.raises((JournalCorrupt, OutputError)):
        Journal(tmp_path / "j", "print")
    assert precious.read_text() == "no journal, and without an end of line"


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b"[]", b"null", b'{"k":[],"v":1}', b'{"k":"a"}', b"\xff", b'"' + b'\\"' * 1000]
)
def test_records_that_no_compile_writes_are_damage(tmp_path, body):
    path = fill(tmp_path / "j")
    with path.open("ab") as file:
        file.write(b"%08x %b\n" % (zlib.crc32(body), body))
    with pytest.raises(JournalCorrupt, match="line 5 is damaged"):
        Journal(tmp_path / "j", "print")


class Measured(msgspec.Struct):
    loss: float
    rows: list[dict[str, tuple[float, ...]]]


def test_a_struct_is_read_as_it_was_written(tmp_path):
    written = Measured(math.inf, [{}, {"cond": (1 / 3, -0.5)}])
    with Journal(tmp_path / "j", "print") as journal:
        journal.put("k", written)
        assert journal.get("k", Measured) == written
        assert journal.get("other", Measured) is None
    with Journal(tmp_path / "j", "print") as journal:
        assert journal.get("k", Measured) == written


@pytest.mark.parametrize(
    "value",
    [None, 1.5, "x", [], {}, {"loss": 1.0}, {"loss": "1", "rows": []}, {"loss": 1, "rows": [{"a": 1}]}],
)
def test_a_record_of_another_type_is_refused(tmp_path, value):
    with Journal(tmp_path / "j", "print") as journal:
        journal.put("k", value)
        with pytest.raises(JournalCorrupt, match=r"journal\.jsonl: the record 'k' is of another type"):
            journal.get("k", Measured)


def test_a_number_too_large_for_its_type_is_refused(tmp_path):
    with Journal(tmp_path / "j", "print") as journal:
        journal.put("k", 10**400)
        with pytest.raises(JournalCorrupt, match="the record 'k' is of another type"):
            journal.get("k", float)


def test_a_record_that_does_not_fit_is_refused(tmp_path):
    with Journal(tmp_path / "j", "print") as journal:
        journal.put("k", [1.0, 2.0])
        assert journal.get("k", list[float], lambda values: len(values) == 2) == [1.0, 2.0]
        with pytest.raises(JournalCorrupt, match="the record 'k' does not fit this compile"):
            journal.get("k", list[float], lambda values: len(values) == 3)


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


def test_a_full_disk_is_an_error_that_loses_one_record(tmp_path, monkeypatch):
    """The disk takes a part of the record and no more: refused, and the next call cuts the part off."""

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with Journal(tmp_path / "j", "print") as journal:
        journal.put("k0", 1)
        with monkeypatch.context() as disk:
            disk.setattr(os, "fsync", full)
            with pytest.raises(OutputError, match="cannot append"):
                journal.put("k1", 2)
    path = tmp_path / "j" / "journal.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    with Journal(tmp_path / "j", "print") as journal:
        assert journal.records == {"k0": 1}


def test_a_journal_that_was_removed_while_waiting_is_made_anew(tmp_path, monkeypatch):
    """The compile that held it ended between our opening the file and our locking it."""
    import fcntl

    flock, calls = fcntl.flock, []

    def late(file, operation):
        if not calls:
            (tmp_path / "j" / "journal.jsonl").unlink()
        calls.append(operation)
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with Journal(tmp_path / "j", "print") as journal:
        journal.put("k", 1)
    assert len(calls) == 2
    with Journal(tmp_path / "j", "print") as journal:
        assert journal.records == {"k": 1}


def test_a_removal_that_is_cut_short_leaves_no_records_without_their_tensors(tmp_path, monkeypatch):
    def cut(path, ignore_errors):
        if path.exists():
            (path / "part").unlink()
            raise KeyboardInterrupt

    folder = tmp_path / "journal"
    with Journal(folder, "print") as journal:
        journal.put("part", 1)
        (folder / "part").write_text("tensors")
        with monkeypatch.context() as patched:
            patched.setattr("shutil.rmtree", cut)
            with pytest.raises(KeyboardInterrupt):
                journal.discard()
    with Journal(folder, "print") as journal:
        assert journal.records == {}
        journal.discard()
    assert list(tmp_path.iterdir()) == []
