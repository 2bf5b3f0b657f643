"""The policy source, a compile's flags in TOML, and how it is merged with those of the command line.

model = "wan2.1-nano"
budget = "10"
seed = 0

    plan = make_request(read_source(path), flags).resolve()
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import msgspec

from budc.compiler.engine import FOR
from budc.compiler.request import CompileRequest
from budc.option_names import file_names, option
from budc.schema.errors import BudcError, UsageError
from budc.schema.files import read_limited
from budc.schema.toml import parse_toml

MAX_SOURCE_BYTES = 1 << 20
_BUDGETS = ("budget", "sweep", "quality", "within")
_PATHS = ("weights", "calibration", "held_out", "key", "public", "out", "trace", "merge", "metric_weights")


def read_source(path: Path) -> dict[str, Any]:
    """Read a policy source; paths in it are relative to the file.

    Raises:
        UsageError: unreadable, not TOML, or a key that is not known (the nearest known one is suggested).
    """
    try:
        source = parse_toml(read_limited(path, MAX_SOURCE_BYTES))
    except (BudcError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path}: cannot read the policy source: {error}", remedy="give a TOML file"
        ) from error
    except ValueError as error:
        raise UsageError(f"{path}: not TOML: {error}", remedy="see docs/compile.md for an example") from error
    if FOR in source:
        # A word of Python, so the field has another name.
        source["engine"] = source.pop(FOR)
    fields = CompileRequest.__struct_fields__
    for key in source:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(fields)}"
            raise UsageError(f"{path}: unknown key {key!r}", remedy=hint)
    for key in _PATHS:
        # A key may be a URI: only what names a file is relative to this one.
        if isinstance(source.get(key), str) and not (key == "key" and ":" in source[key]):
            source[key] = path.parent / source[key]
    if isinstance(source.get("lora"), list):
        source["lora"] = [
            str(path.parent / text) if isinstance(text, str) else text for text in source["lora"]
        ]
    for key in ("budget", "sweep"):
        if isinstance(source.get(key), int) and not isinstance(source[key], bool):
            source[key] = str(source[key])
    return source


@contextmanager
def named_source(path: Path | None, source: Collection[str], flags: Collection[str]) -> Iterator[None]:
    """Let errors name the keys of a policy source that no flag overrides as its own, for the length of a with-block."""
    keys = {FOR if key == "engine" else key for key in source if key not in flags}
    with nullcontext() if path is None else file_names(path, keys):
        yield


def make_request(source: dict[str, Any], flags: dict[str, Any]) -> CompileRequest:
    """Merge a policy source with flags that were given; flags win.

    Raises:
        UsageError: model or budget missing, or a value of the wrong type.
    """
    merged = source | {key: value for key, value in flags.items() if value is not None}
    if "model" not in merged:
        raise UsageError("no model given", remedy="pass --model, or set model in the policy source")
    _check_mask_alone(merged)
    budgets = [name for name in _BUDGETS if name in merged]
    if "mask" not in merged and len(budgets) != 1:
        raise UsageError(
            f"both {option(budgets[0])} and {option(budgets[1])} given" if budgets else "no budget given",
            remedy="pass one of --budget 10, --sweep 6,8,10 for a family, --quality psnr>=30, or --within 2.0s",
        )
    try:
        plain = {key: str(value) if isinstance(value, Path) else value for key, value in merged.items()}
        return msgspec.convert(plain, CompileRequest, dec_hook=_path)
    except msgspec.ValidationError as error:
        raise _mistyped(error) from error


def _mistyped(error: msgspec.ValidationError) -> UsageError:
    """Return the error for a value of another kind, by the option that has it."""
    what, _, where = str(error).partition(" - at `$.")
    name = re.match(r"[a-z_]*", where)
    if name is None or not name[0]:
        return UsageError(f"policy source: {error}", remedy="docs/compile.md has an example")
    key = name[0].replace("_", "-")
    return UsageError(
        f"{option(key)}: {what}".replace(" | null", ""), remedy=f"give another {key}; docs/compile.md"
    )


def _check_mask_alone(merged: dict[str, Any]) -> None:
    """Refuse what a mask of the user's leaves no room for. Raises UsageError."""
    if "mask" not in merged:
        return
    others = {name: merged.get(name) for name in ("sweep", "quality", "within", "search")}
    others["steps"] = "auto" if merged.get("steps") == "auto" else None
    others["branches"] = "separate" if merged.get("branches") == "separate" else None
    for name, value in others.items():
        if value is not None:
            raise UsageError(
                f"{option(name, value)}: the mask that is given decides this",
                remedy=f"leave out {option(name)} or {option('mask')}",
            )


def _path(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise TypeError(f"Expected `{kind.__name__}`, got `{type(value).__name__}`")
