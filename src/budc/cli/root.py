"""The `budc` command: its subcommands, and one place where every refusal becomes a message and an exit code."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
from collections.abc import Sequence

import click

from budc.cli.dependencies import Interrupted, missing_extra
from budc.schema.errors import BudcError, OutputError, UsageError

INTERRUPTED = 130
"""128 + SIGINT, as shells count."""
PIPE_CLOSED = 1

COMMANDS = {
    "Make policies": ("init", "models", "plan", "compile", "transfer"),
    "Sign and verify": ("keygen", "trust", "sign", "attach", "inspect", "verify"),
    "Run and serve": ("run", "export", "bind", "push"),
    "Measure": ("evaluate", "report"),
    "Shell": ("completion",),
}
"""Heading -> subcommands, in the order in which they are used: NAME is `budc.cli.commands.NAME.NAME_command`."""


class LazyGroup(click.Group):
    """A group that imports a subcommand's module when that subcommand is called, or all of them for `--help`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all subcommands."""
        return sorted(name for names in COMMANDS.values() for name in names)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the subcommands under their headings."""
        longest = max(map(len, self.list_commands(ctx)))
        for heading, names in COMMANDS.items():
            commands = [(name, self.get_command(ctx, name)) for name in names]
            with formatter.section(heading):
                formatter.write_dl(
                    [
                        (name.ljust(longest), command.get_short_help_str(formatter.width - longest - 6))
                        for name, command in commands
                        if command
                    ]
                )

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a subcommand, or None where there is none of that name."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"budc.cli.commands.{cmd_name}")
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command


def _version(context: click.Context, _parameter: click.Parameter, requested: bool) -> None:
    if requested:
        import budc

        click.echo(f"budc {budc.__version__}")
        context.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print the version."
)
def root() -> None:
    """Compile a diffusion step-caching policy for a fixed budget, sign it, verify it, run it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; what each code means is in `budc.schema.errors`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        # A terminal of a narrow encoding gets "?" for what it cannot show, not a traceback.
        getattr(stream, "reconfigure", lambda **_: None)(errors="replace")
    if sys.stdout is None:
        # The first file that is opened would become the standard output.
        return _report(
            OutputError("the standard output is closed", remedy="send it to a file"), as_json=False
        )
    try:
        code = root.main(arguments, prog_name="budc", standalone_mode=False)
        sys.stdout.flush()
    except BudcError as error:
        return _report(error, "--json" in arguments)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        return _report(_usage(error), "--json" in arguments)
    except ModuleNotFoundError as error:
        refusal = missing_extra(error)
        if refusal is None:
            raise
        return _report(refusal, "--json" in arguments)
    except (Interrupted, click.Abort, KeyboardInterrupt) as error:
        click.echo(f"interrupted{error}" if isinstance(error, Interrupted) else "interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of the output closed it; the interpreter's own flush at exit must not fail on it again.
        sys.stdout = None
        return PIPE_CLOSED
    except OSError as error:
        return _system_error(error, "--json" in arguments)
    return code if isinstance(code, int) else 0


def _system_error(error: OSError, as_json: bool) -> int:
    """Report what the operating system refuses: an unsearchable folder, a name that is too long, a full disk."""
    if error.filename is None:
        # Most likely the standard output, which cannot take the report of --json or the interpreter's flush either.
        as_json = False
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    where = error.filename if error.filename is not None else "the standard output or a file"
    return _report(OutputError(f"cannot use {where}: {error.strerror or error}"), as_json)


def _usage(error: click.ClickException) -> UsageError:
    context = getattr(error, "ctx", None)
    remedy = f"{context.command_path} --help" if context is not None else ""
    return UsageError(error.format_message(), remedy=remedy)


def _report(error: BudcError, as_json: bool) -> int:
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
