"""What is shown of an error of another library."""

from budc.schema.foreign_error import LONGEST, reason_of

TRACEBACK = """Initialization failure from server:
Traceback (most recent call last):
  File "proxier.py", line 780, in Datapath
RuntimeError: no room
"""


def test_the_line_that_says_most_is_shown() -> None:
    assert reason_of(RuntimeError("\n The actor died.\n\tpid: 7")) == "The actor died."
    assert reason_of(RuntimeError(TRACEBACK)) == "RuntimeError: no room"
    assert reason_of(ValueError("x" * 2 * LONGEST)) == "x" * LONGEST


def test_an_error_that_says_nothing_is_named() -> None:
    assert reason_of(TimeoutError()) == "TimeoutError"
    assert reason_of(ValueError(" \n")) == "ValueError"
