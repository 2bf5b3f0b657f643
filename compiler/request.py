"""What the user asks of a compile: flags, or a policy source in TOML of the same content.

model = "wan2.1-nano"
budget = "10"
seed = 0
"""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from budc.compiler.budget import parse_budget
from budc.compiler.search import algorithm
from budc.policies.profile import ModelProfile, load_profile
from budc.schema.errors import UsageError
from budc.schema.policy import Name

_PATHS = ("weights", "calibration", "key", "out")


class CompileRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One compile. Fields left `None` take the model profile's value."""

    model: str
    budget: str
    steps: int | None = None
    weights: Path | None = None
    search: str = "paper"
    seed: int = 0
    calibration: Path | None = None
    key: Path | None = None
    out: Path | None = None
    name: str | None = None
    revision: int = 1
    download: bool = False


def read_source(path: Path) -> dict[str, Any]:
    """Read a policy source; paths in it are relative to the file.

    Raises:
        UsageError: unreadable, not TOML, or a key that is not known (the nearest known one is suggested).
    """
    try:
        source = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path}: cannot read the policy source: {error}", remedy="give a TOML file"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: not TOML: {error}", remedy="see docs/compile.md for an example") from error
    known = CompileRequest.__struct_fields__
    for key in source:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
            raise UsageError(f"{path}: unknown key {key!r}", remedy=hint)
    for key in _PATHS:
        if isinstance(source.get(key), str):
            source[key] = path.parent / source[key]
    if isinstance(source.get("budget"), int) and not isinstance(source["budget"], bool):
        source["budget"] = str(source["budget"])
    return source


def make_request(source: dict[str, Any], flags: dict[str, Any]) -> CompileRequest:
    """Merge a policy source with flags that were given; flags win.

    Raises:
        UsageError: model or budget missing, or a value of the wrong type or out of range.
    """
    merged = source | {key: value for key, value in flags.items() if value is not None}
    for key in ("model", "budget"):
        if key not in merged:
            raise UsageError(f"no {key} given", remedy=f"pass --{key}, or set {key} in the policy source")
    try:
        plain = {k: str(v) if isinstance(v, Path) else v for k, v in merged.items()}
        request = msgspec.convert(plain, CompileRequest, dec_hook=_path)
    except msgspec.ValidationError as error:
        raise UsageError(f"policy source: {error}") from error
    for key, low, high in (("seed", 0, 2**53 - 1), ("steps", 1, 1000), ("revision", 1, 2**31 - 1)):
        value = getattr(request, key)
        if value is not None and not low <= value <= high:
            raise UsageError(f"{key} is {value}, expected {low} to {high}")
    return request


def check_request(request: CompileRequest) -> tuple[ModelProfile, int, int]:
    """Refuse what can be refused without loading anything; return profile, steps and NFE.

    Raises:
        UsageError: unknown model or algorithm, or a name that an artifact cannot have.
        BudgetImpossible: see `parse_budget`.
    """
    profile = load_profile(request.model)
    steps = request.steps or profile.steps
    nfe = parse_budget(request.budget, steps)
    algorithm(request.search)
    if request.name is not None:
        try:
            msgspec.convert(request.name, Name)
        except msgspec.ValidationError as error:
            raise UsageError(
                f"--name: {request.name!r} cannot name a policy",
                remedy="use letters, digits, dot, dash, underscore",
            ) from error
    return profile, steps, nfe


def _path(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise TypeError(f"Expected `{kind.__name__}`, got `{type(value).__name__}`")
