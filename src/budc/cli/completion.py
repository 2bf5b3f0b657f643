"""What a shell may complete: the values of options, which are looked up only then."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import click
    from click.shell_completion import CompletionItem

Complete = Callable[["click.Context", "click.Parameter", str], "list[CompletionItem]"]


def one_of(names: Callable[[], Iterable[str]], *, files: bool = False) -> Complete:
    """Return the completion of an option that takes one of some names, or with `files` the path of a file."""

    def complete(
        _context: click.Context, _parameter: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        found = [CompletionItem(name) for name in names() if name.startswith(incomplete)]
        return found or ([CompletionItem(incomplete, type="file")] if files else [])

    return complete


def several_of(names: Callable[[], Iterable[str]]) -> Complete:
    """Return the completion of an option that takes names with commas between them."""

    def complete(
        _context: click.Context, _parameter: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        before, comma, last = incomplete.rpartition(",")
        given = before.split(",")
        rest = (name for name in names() if name.startswith(last) and name not in given)
        return [CompletionItem(f"{before}{comma}{name}") for name in rest]

    return complete


def models() -> Iterable[str]:
    """Return the names of the profiles of this release."""
    from budc.policies.profile import profile_names

    return profile_names()


def searches() -> Iterable[str]:
    """Return the search algorithms that `--search` takes."""
    from budc.compiler.search import ALGORITHMS, GIVEN, GIVEN_FITTED

    return [name for name in ALGORITHMS if name not in (GIVEN, GIVEN_FITTED)]


def efforts() -> Iterable[str]:
    """Return the efforts."""
    from budc.compiler.selection.effort import EFFORTS

    return EFFORTS


def metrics() -> Iterable[str]:
    """Return the metrics of frames."""
    from budc.compiler.metrics import METRICS

    return METRICS


def rivals() -> Iterable[str]:
    """Return the methods to compare with."""
    from budc.compiler.comparison.rivals import RIVALS

    return ["all", "none", *RIVALS]
