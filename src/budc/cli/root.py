"""The `budc` command and its subcommands."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import click

from budc.cli.ending import exit_code, report
from budc.schema.errors import OutputError

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
        return report(OutputError("the standard output is closed", remedy="send it to a file"))
    return exit_code(
        lambda: root.main(arguments, prog_name="budc", standalone_mode=False), as_json="--json" in arguments
    )
