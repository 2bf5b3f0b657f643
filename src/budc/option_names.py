"""How an error names an option: by its flag on the command line, by its key in a file, by its argument in Python.

    raise UsageError(f"{option('budget')}: not a number", remedy=f"try {option('budget', 10)}")

says "--budget: not a number" and "try --budget 10" on the command line, and "budget in my.toml: not a number" where
`file_names` says that it comes from there; a function decorated with `@python_names()` says "budget: not a number" and
"try budget=10".
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import PurePath

_in_python = ContextVar("in_python", default=False)
_in_file: ContextVar[tuple[str, Collection[str]]] = ContextVar("in_file", default=("", ()))


@contextmanager
def python_names() -> Iterator[None]:
    """Let errors name Python arguments, for the length of a with-block or a function."""
    token = _in_python.set(True)
    try:
        yield
    finally:
        _in_python.reset(token)


@contextmanager
def file_names(path: object, keys: Collection[str]) -> Iterator[None]:
    """Let errors say that the options of these keys come from the file at `path`, for the length of a with-block."""
    token = _in_file.set((str(path), keys))
    try:
        yield
    finally:
        _in_file.reset(token)


def option(name: str, value: object = None) -> str:
    """Return how the user writes an option: its name alone, or with the value that he gave or should give.

    An option that is `True` is a flag without a value.
    """
    if isinstance(value, PurePath):
        value = str(value)
    if _in_python.get():
        argument = name.replace("-", "_")
        return argument if value is None else f"{argument}={value!r}"
    path, keys = _in_file.get()
    if name.replace("-", "_") in keys:
        return f"{name} in {path}" if value is None else f"{name} = {json.dumps(value)} in {path}"
    return f"--{name}" if value is None or value is True else f"--{name} {value}"


def worded(command_line: str, python: str) -> str:
    """Return the text for where the user is: for what the two call by different names."""
    return python if _in_python.get() else command_line
