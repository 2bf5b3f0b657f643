"""`budc completion`: the script with which a shell completes commands, options and their values."""

from __future__ import annotations

import click


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion_command(shell: str) -> None:
    """Print the completion script of a shell.

    bash: `eval "$(budc completion bash)"` in ~/.bashrc; zsh: the same in ~/.zshrc; fish: `budc completion fish >
    ~/.config/fish/completions/budc.fish`. Values of --model, --search, --effort, --metrics and --against are completed.
    """
    from click.shell_completion import get_completion_class

    root = click.get_current_context().find_root().command
    found = get_completion_class(shell)
    assert found is not None  # click knows these three
    click.echo(found(root, {}, "budc", "_BUDC_COMPLETE").source())
