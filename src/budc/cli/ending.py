"""How a command ends: the one place where every refusal becomes a message and an exit code."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable

import click

from budc.cli.dependencies import Interrupted, missing_extra
from budc.schema.errors import BudcError, OutputError, UsageError

INTERRUPTED = 130
"""128 + SIGINT, as shells count."""
PIPE_CLOSED = 1


def exit_code(call: Callable[[], object], *, as_json: bool = False) -> int:
    """Call a command and return its exit code, with a message where it ends early; `as_json` prints that too."""
    try:
        code = call()
        sys.stdout.flush()
    except BudcError as error:
        return report(error, as_json=as_json)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        return report(_usage(error), as_json=as_json)
    except ModuleNotFoundError as error:
        refusal = missing_extra(error)
        if refusal is None:
            raise
        return report(refusal, as_json=as_json)
    except (Interrupted, click.Abort, KeyboardInterrupt) as error:
        click.echo(f"interrupted{error}" if isinstance(error, Interrupted) else "interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of the output closed it; the interpreter's own flush at exit must not fail on it again.
        sys.stdout = None
        return PIPE_CLOSED
    except OSError as error:
        return _system_error(error, as_json=as_json)
    return code if isinstance(code, int) else 0


def report(error: BudcError, *, as_json: bool = False) -> int:
    """Say on stderr what was wrong and what to do, with `as_json` on stdout too, and return the exit code."""
    click.echo(f"error: {error}\n  try: {error.remedy}", err=True)
    if as_json:
        record = {
            "error": type(error).__name__,
            "message": str(error),
            "remedy": error.remedy,
            "exitCode": error.exit_code,
        }
        click.echo(json.dumps(record, indent=1))
    return error.exit_code


def _system_error(error: OSError, *, as_json: bool) -> int:
    """Report what the operating system refuses: an unsearchable folder, a name that is too long, a full disk."""
    if error.filename is None:
        # Most likely the standard output, which cannot take the report of --json or the interpreter's flush either.
        as_json = False
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    where = error.filename if error.filename is not None else "the standard output or a file"
    return report(OutputError(f"cannot use {where}: {error.strerror or error}"), as_json=as_json)


def _usage(error: click.ClickException) -> UsageError:
    context = getattr(error, "ctx", None)
    remedy = f"{context.command_path} --help" if context is not None else ""
    return UsageError(error.format_message(), remedy=remedy)
