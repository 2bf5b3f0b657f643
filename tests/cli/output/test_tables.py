import contextlib
import io

import pytest

from budc.cli.output.tables import fields, number, ruler, strip, table, wrapped
from budc.schema.mask import StepMask


@pytest.mark.parametrize("steps", [1, 6, 28, 50, 1000])
def test_ruler_numbers_start_under_their_step(steps):
    line = ruler(steps)
    for mark in line.split():
        assert line.index(mark, int(mark)) == int(mark)
    assert "0" in line


def test_strip_is_one_line_however_long():
    mask = StepMask.uniform(1000, 100)
    marks, _ = strip(mask).split("\n")
    assert marks == mask.strip()
    assert len(marks) == 1000


def test_strip_where_stdout_is_ascii():
    with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), encoding="ascii")):
        assert strip(StepMask.of([True, False, True])).split("\n")[0] == "#.#"


def test_table_is_plain_and_never_wraps():
    text = table(
        ["name", "n", "where"], [["[red]a", "1", "x" * 500], ["b\x1b[31m", "22", "y"]], text=("where",)
    )
    assert text.split("\n") == [
        "name     n  where",
        f"[red]a   1  {'x' * 500}",
        "b?[31m  22  y",
    ]


def test_fields_align_and_indent_further_lines():
    assert fields([("a", "1"), ("long", "2\n3")]) == "a     1\nlong  2\n      3"


def test_wrapped_keeps_words_whole():
    lines = wrapped([f"{n}: +1 -2" for n in range(30)], gap="   ").split("\n")
    assert len(lines) > 1
    assert max(map(len, lines)) <= 100
    assert "   ".join(lines).split("   ") == [f"{n}: +1 -2" for n in range(30)]


def test_numbers():
    assert [number(x) for x in (None, 0.000123456, 27.123)] == ["–", "0.000123", "27.1"]


def test_on_a_narrow_terminal_a_row_is_a_list(monkeypatch):
    from budc.cli.output import tables

    headers, rows = ["method", "NFE", "artifact"], [["policy", "10", "x" * 60], ["full run", "50", "–"]]
    wide = tables.table(headers, rows)
    monkeypatch.setattr(tables, "_columns", lambda: 60)
    narrow = tables.table(headers, rows)
    assert (
        narrow == f"policy\n  NFE       10\n  artifact  {'x' * 60}\nfull run\n  NFE       50\n  artifact  –"
    )
    assert wide.splitlines()[0].split() == headers
    assert tables.table(["a", "b"], [["1", "2"]]).splitlines()[0].split() == ["a", "b"]
    assert max(map(len, tables.wrapped(["word"] * 40).splitlines())) <= 60
