"""The command line: `budc COMMAND`, one module a command.

Nothing here decides anything: a command reads its flags, calls the compiler, a runtime or the schema package
and renders what comes back. `docs/cli.md` shows every command at work.
"""

from budc.cli.root import main

__all__ = ["main"]
