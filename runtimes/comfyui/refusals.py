"""Refusals as ComfyUI shows them: one line, the message of the error."""

from collections.abc import Iterator
from contextlib import contextmanager

from budc.schema.errors import BudcError


@contextmanager
def shown() -> Iterator[None]:
    """Let errors that leave the with-block say their remedy in the message, once."""
    try:
        yield
    except BudcError as error:
        if not str(error).endswith(error.remedy):
            error.args = (f"{error}; {error.remedy}",)
        raise
