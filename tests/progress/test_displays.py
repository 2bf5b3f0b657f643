"""Stages and passes as lines, as JSON, and on a terminal; nothing is silent for long."""

import json
import time

import pytest

from budc.progress import Bar, hashing, planned_passes, progress, reported, shown_progress, stage, written
from budc.progress.displays import in_words
from budc.progress.remaining_work import RemainingWork
from budc.progress.terminal import Terminal


def lines(capsys):
    return capsys.readouterr().err.splitlines()


def test_lines_name_stages_and_say_what_is_left(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(written.time, "monotonic", lambda: now[0])
    with shown_progress("lines"), planned_passes(RemainingWork({"search": [10.0], "held-out": [10.0]})):
        stage("load", "a model")
        with progress("search (joint)", 4) as bar:
            now[0] += 3
            bar.advance("best 0.1")
            bar.say("a note")
    first, begun, moved, said = lines(capsys)
    assert first == "load: a model"
    assert begun == "search (joint)"
    assert moved == "search (joint): 1/4 best 0.1, about 9 s left; all: about 21 s left"
    assert said == "a note"


def test_json_has_one_event_a_line(capsys, monkeypatch):
    monkeypatch.setattr(written, "JSON_EVERY", 0.0)
    with shown_progress("json"):
        stage("load", "a model")
        with progress("search", 2) as bar:
            bar.say("halved")
            bar.advance("best 1", replayed=True)
            bar.advance()
    events = [json.loads(line) for line in lines(capsys)]
    assert [event["event"] for event in events] == ["stage", "pass", "note", "progress", "progress", "done"]
    assert events[3] == {
        **{"event": "progress", "stage": "search", "done": 1, "total": 2, "note": "best 1"},
        **{"left": None, "allLeft": None},
    }
    assert events[4]["left"] == 0


@pytest.mark.parametrize(("form", "said"), [("lines", "load: still going on after 0 s"), ("json", '"alive"')])
def test_a_stage_that_takes_long_is_not_silent(capsys, monkeypatch, form, said):
    monkeypatch.setattr(written, "ALIVE_EVERY", 0.02)
    monkeypatch.setattr(written.JsonLines, "quiet", 0.02)
    with shown_progress(form):
        stage("load", "a model")
        time.sleep(0.2)
    assert any(said in line for line in lines(capsys)[1:])
    time.sleep(0.05)
    assert lines(capsys) == []


def test_lines_of_a_long_stage_become_fewer(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(written.time, "monotonic", lambda: now[0])
    shown = written.Lines()
    spoken = []
    for name in ("search", "report"):
        shown.staged(name, "")
        began = now[0]
        bar = Bar(name, 600, shown)
        for _ in range(600):
            now[0] += 0.1
            bar.advance()
            if lines(capsys)[-1:] and bar.done > 1:
                spoken.append(round(now[0] - began))
    assert spoken == 2 * [2, 6, 14, 29, 44, 59]


def test_a_pass_that_moves_is_not_said_to_go_on(capsys, monkeypatch):
    monkeypatch.setattr(written, "ALIVE_EVERY", 0.2)
    monkeypatch.setattr(written, "LOG_EVERY", 0.3)
    with shown_progress("lines"), progress("search", 50) as bar:
        for _ in range(50):
            time.sleep(0.01)
            bar.advance()
    begun, *said = lines(capsys)
    assert begun == "search"
    assert said
    assert all(line.startswith("search: ") and "/50" in line for line in said)


def test_a_terminal_shows_bars_and_spinners():
    import io

    from rich.console import Console

    file = io.StringIO()
    display = Terminal(Console(file=file, force_terminal=True, width=120))
    with display.awake():
        display.staged("load", "[bold]a model")
        assert display._spinner is not None
        from budc.progress import Bar

        bar = Bar("search [x]", 2, display)
        with display.shown(bar):
            assert display._spinner is None
            bar.advance("best [1]")
            display.said("halved")
    shown = file.getvalue()
    for part in ("load: [bold]a model", "search [x]", "best [1]", "halved", "1/2"):
        assert part in shown


def test_a_callback_hears_of_passes_alone(capsys):
    heard = []
    with reported(lambda *what: heard.append(what)):
        stage("load", "a model")
        with progress("search", 2) as bar:
            bar.advance()
    with reported(None), progress("search", 2) as bar:
        bar.advance()
    assert heard == [("search", 1, 2)]
    assert lines(capsys) == []


def test_hashing_counts_megabytes(monkeypatch):
    heard = []
    with reported(lambda *what: heard.append(what)), hashing(300_000_000) as advance:
        for _ in range(3):
            advance(100_500_000)
    assert heard == [("hashing the model, MB", done, max(300, done)) for done in (100, 201, 301)]
    with hashing(10) as advance:
        advance(10)


@pytest.mark.parametrize(("seconds", "words"), [(40, "40 s"), (360, "6 min"), (9000, "2.5 h")])
def test_durations(seconds, words):
    assert in_words(seconds) == words
