"""The secret that protects a key: the passphrase of an encrypted PEM, or the PIN of a token."""

import getpass
import os
import sys
from collections.abc import Callable

from budc.schema.errors import KeyUnusable

VARIABLE = "BUDC_SECRET"

Secret = Callable[[str], str]
"""Takes a description such as "passphrase of release.key" or "pin"; returns the secret."""


def ask_secret(what: str) -> str:
    """Return the secret from the environment (BUDC_SECRET), else ask the person at the terminal.

    Raises:
        KeyUnusable: the variable is not set and there is no terminal.
    """
    value = os.environ.get(VARIABLE)
    if value is not None:
        return value
    if not sys.stdin.isatty():
        raise KeyUnusable(f"the {what} is needed", remedy=f"set {VARIABLE}, or run this at a terminal")
    try:
        return getpass.getpass(f"{what}: ")
    except EOFError as error:
        raise KeyUnusable(f"the {what} is needed, and the terminal was closed") from error
