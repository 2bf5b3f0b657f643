"""The flags that say what to sign with, the same for every command that signs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., object])


def signing_options(command: _Command) -> _Command:
    """Give a command `--key` and `--public`."""
    public = click.option(
        "--public",
        type=click.Path(path_type=Path),
        metavar="PUB",
        help="The public half of --key, where that is a URI.",
    )
    key = click.option(
        "--key",
        metavar="KEY",
        help="Private key to sign with: a PEM file (see `budc keygen`), env:NAME, or a URI such as "
        "hsm:2?label=TOKEN, awskms:…, gcpkms:…, azurekms:…, hv:…",
    )
    return key(public(command))
