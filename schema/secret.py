"""The one secret that a key may need: the passphrase of an encrypted PEM, or the PIN of a token."""

import getpass
import os
import sys
from collections.abc import Callable

from budc.schema.errors import KeyUnusable

VARIABLE = "BUDC_SECRET"

Secret = Callable[[str], str]
"""Returns the secret of what it is told, "passphrase of release.key" or "pin"."""


def ask_secret(what: str) -> str:
    """Return the secret from the environment (BUDC_SECRET), else ask the person at the terminal.

    Raises:
        KeyUnusable: neither is there.
    """
    value = os.environ.get(VARIABLE)
    if value is not None:
        return value
    if not sys.stdin.isatty():
        raise KeyUnusable(f"the {what} is needed", remedy=f"set {VARIABLE}, or run this at a terminal")
    return getpass.getpass(f"{what}: ")
