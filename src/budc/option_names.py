"""How an error names an option: by its flag on the command line, by its argument in Python.

    raise UsageError(f"{option('budget')}: not a number", remedy=f"try {option('budget', 10)}")

says "--budget: not a number" and "try --budget 10" on the command line; a function decorated with `@python_names()`
says "budget: not a number" and "try budget=10".
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_in_python = ContextVar("in_python", default=False)


@contextmanager
def python_names() -> Iterator[None]:
    """Let errors name Python arguments, for the length of a with-block or a function."""
    token = _in_python.set(True)
    try:
        yield
    finally:
        _in_python.reset(token)


def option(name: str, value: object = None) -> str:
    """Return how the user writes an option: its name alone, or with the value that he gave or should give.

    An option that is `True` is a flag without a value.
    """
    if _in_python.get():
        return name if value is None else f"{name}={value!r}"
    return f"--{name}" if value is None or value is True else f"--{name} {value}"


def worded(command_line: str, python: str) -> str:
    """Return the text for where the user is: for what the two call by different names."""
    return python if _in_python.get() else command_line
