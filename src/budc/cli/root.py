"""The `budc` command: its subcommands, and one place where every refusal becomes a message and an exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

import click

import budc
from budc.cli.commands.attach import attach_command
from budc.cli.commands.bind import bind_command
from budc.cli.commands.compile import compile_command
from budc.cli.commands.export import export_command
from budc.cli.commands.inspect import inspect_command
from budc.cli.commands.keygen import keygen_command
from budc.cli.commands.models import models_command
from budc.cli.commands.plan import plan_command
from budc.cli.commands.push import push_command
from budc.cli.commands.run import run_command
from budc.cli.commands.sign import sign_command
from budc.cli.commands.transfer import transfer_command
from budc.cli.commands.trust import trust_command
from budc.cli.commands.verify import verify_command
from budc.cli.dependencies import Interrupted, missing_extra
from budc.schema.errors import BudcError, UsageError

INTERRUPTED = 130
"""128 + SIGINT, as shells count."""
PIPE_CLOSED = 1


def _version(context: click.Context, _parameter: click.Parameter, asked: bool) -> None:
    if asked:
        click.echo(f"budc {budc.__version__}")
        context.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print the version."
)
def root() -> None:
    """Compile a diffusion step-caching policy for a fixed budget, sign it, verify it, run it."""


for _command in (
    compile_command,
    keygen_command,
    sign_command,
    trust_command,
    verify_command,
    inspect_command,
    attach_command,
    push_command,
    export_command,
    bind_command,
    run_command,
    models_command,
    plan_command,
    transfer_command,
):
    root.add_command(_command)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; what each code means is in `budc.schema.errors`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        # A terminal of a narrow encoding gets "?" for what it cannot show, not a traceback.
        getattr(stream, "reconfigure", lambda **_: None)(errors="replace")
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
        known = missing_extra(error)
        if known is None:
            raise
        return _report(known, "--json" in arguments)
    except (Interrupted, click.Abort, KeyboardInterrupt) as error:
        click.echo(f"interrupted{error}" if isinstance(error, Interrupted) else "interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has seen enough; let the interpreter's own flush at exit find no pipe.
        sys.stdout = None
        return PIPE_CLOSED
    return code if isinstance(code, int) else 0


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
