"""The options of keys and trust: `--key` and `--public` say what to sign with, `--trust` says whom to believe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from budc.cli.options import PATH
from budc.schema.errors import UsageError

if TYPE_CHECKING:
    from budc.schema.signers import Signer

_Command = TypeVar("_Command", bound=Callable[..., object])

allow_unsigned_option = click.option(
    "--allow-unsigned", is_flag=True, help="Accept an artifact that nobody signed."
)
trust_option = click.option(
    "--trust",
    "trusted",
    multiple=True,
    type=PATH,
    metavar="KEY|FILE",
    help="Whom to believe: a public key (PEM) or a trust file (TOML), in place of your own trust file. "
    "May be given again.",
)
require_evaluation_option = click.option(
    "--require-evaluation",
    metavar="BOUNDS",
    help="Refuse a policy without an evaluation by a trusted evaluator, in its calibrated setting, within these "
    "bounds, such as psnr>=30,psnr.worst>=25,n>=32.",
)


def signing_options(command: _Command) -> _Command:
    """Give a command `--key` and `--public`, which say what to sign with."""
    public = click.option(
        "--public", type=PATH, metavar="FILE", help="Public half of --key; needed where --key is a URI."
    )
    key = click.option(
        "--key",
        metavar="KEY",
        help="Private key to sign with: a PEM file (see `budc keygen`), env:NAME, or a URI such as "
        "hsm:2?label=TOKEN, awskms:…, gcpkms:…, azurekms:…, hv:…",
    )
    return key(public(command))


def required_signer(key: str | None, public: Path | None) -> Signer:
    """Return the signer of `--key` and `--public`, for a command that always signs.

    Raises:
        UsageError: no key is given. KeyUnusable: it cannot be used.
    """
    from budc.schema.keys import load_public
    from budc.schema.signers import load_signer

    if key is None:
        raise UsageError("--key: no key is given to sign with", remedy="--key KEY; `budc keygen` makes one")
    return load_signer(key, public=load_public(public) if public is not None else None)


def optional_signer(key: str | None, public: Path | None) -> Signer | None:
    """Return the signer of `--key` and `--public`, None where no key is given.

    Raises:
        UsageError: --public without a key. KeyUnusable: the key cannot be used.
    """
    if key is None and public is not None:
        raise UsageError("--public: it is the public half of --key", remedy="give both, or neither")
    return None if key is None else required_signer(key, public)


def trust_options(command: _Command) -> _Command:
    """Give a command `--trust` and `--allow-unsigned`, which say what to believe."""
    return trust_option(allow_unsigned_option(command))


def former_key_option(command: _Command) -> _Command:
    """Give a command `--key PUB`, the former name of `--trust`: it still works, with a notice on stderr."""
    return click.option(
        "--key", "former_keys", multiple=True, type=PATH, hidden=True, callback=_notice_of_former_key
    )(command)


def _notice_of_former_key(
    _context: click.Context, _parameter: click.Parameter, keys: tuple[Path, ...]
) -> tuple[Path, ...]:
    if keys:
        click.echo("notice: here --key is the former name of --trust; use --trust", err=True)
    return keys
