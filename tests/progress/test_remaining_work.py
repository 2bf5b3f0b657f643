import pytest

from budc.progress import remaining_work
from budc.progress.remaining_work import RemainingWork, likely_total


@pytest.fixture
def clock(monkeypatch):
    """A clock that tests set."""
    now = [0.0]
    monkeypatch.setattr(remaining_work.time, "monotonic", lambda: now[0])
    return now


def test_what_is_left_follows_from_the_pace_so_far(clock):
    work = RemainingWork({"search": [10.0, 30.0], "held-out": [20.0], "held-out full": [40.0]})
    assert work.seconds is None
    work.begin("search (joint)")
    clock[0] = 5.0
    work.advance(0.5, replayed=0.0)
    # Five forwards took five seconds; 95 are left.
    assert work.seconds == pytest.approx(95)
    clock[0] = 10.0
    work.end()
    assert work.seconds == pytest.approx(90)
    clock[0] = 100.0
    work.begin("held-out full")
    clock[0] = 110.0
    work.advance(0.25, replayed=0.0)
    assert work.seconds == pytest.approx(80)


def test_what_was_replayed_is_done_and_says_nothing_of_the_pace(clock):
    work = RemainingWork({"search": [10.0], "held-out": [10.0]})
    work.begin("search")
    clock[0] = 2.0
    work.advance(1.0, replayed=0.8)
    work.end()
    assert work.seconds == pytest.approx(10)


def test_forwards_say_how_much_of_a_pass_is_done(clock):
    work = RemainingWork({"search": [10.0], "held-out": [10.0]})
    work.begin("search")
    clock[0] = 4.0
    work.advance(0.9, replayed=0.0, forwards=4.0)
    assert work.seconds == pytest.approx(16)
    # It ends before it was expected to: nothing of it is left, and the pace is that of what was done.
    clock[0] = 5.0
    work.advance(1.0, replayed=0.0, forwards=5.0)
    work.end()
    assert work.seconds == pytest.approx(10)


def test_what_is_still_to_come_can_be_said_anew(clock):
    work = RemainingWork({"search": [10.0, 10.0]})
    work.begin("search")
    clock[0] = 10.0
    work.end()
    work.expect({"held-out": [3.0, 2.0]})
    assert work.seconds == pytest.approx(5)


def test_a_pass_of_unknown_length_that_goes_on_is_likely_to_go_on(clock):
    assert likely_total(100, 0, 0.3) == 100
    assert likely_total(100, 120, 0) == 120
    # Of those that take more than the median one, half take 1.22 times as much: exp(0.3 x 0.674).
    assert likely_total(100, 100, 0.3) == pytest.approx(122.4, abs=0.1)
    totals = [likely_total(100, spent, 0.3) for spent in (1, 50, 150, 300, 10**9)]
    assert totals == sorted(totals)
    assert totals[0] == pytest.approx(100)
    assert totals[-1] == 10**9


def test_a_pass_that_was_not_expected_counts_for_nothing(clock):
    work = RemainingWork({"search": [10.0]})
    work.begin("frames")
    clock[0] = 100.0
    work.advance(0.5, replayed=0.0)
    work.end()
    assert work.seconds is None


def test_all_that_is_left_is_no_less_than_what_the_running_pass_has_left(clock):
    """Decoding is expected to take as long as a forward, and takes a hundred times that on a small network."""
    work = RemainingWork({"search": [100.0], "held-out frames": [10.0]})
    work.begin("search")
    clock[0] = 10.0
    work.advance(1.0, replayed=0.0)
    work.end()
    work.begin("held-out frames")
    clock[0] = 20.0
    work.advance(0.1, replayed=0.0)
    assert work.seconds == pytest.approx(90)
