"""Prompt files: UTF-8 text, CSV or JSONL, told apart by their extensions.

In a text file each line is a prompt. In CSV (with a header) and in JSONL a prompt may have a seed and a negative
prompt of its own, and an image that it is made from, by its path relative to the file:

    prompt,seed,negative_prompt,image                    {"prompt": "a red box", "seed": 7}
    a red box,7,blurred,images/box.png                   {"prompt": "a blue ring", "negative_prompt": "dark"}
"""

from __future__ import annotations

import csv
import difflib
import io
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec

from budc.schema import fields
from budc.schema.errors import BudcError, UsageError
from budc.schema.files import read_limited

MAX_BYTES = 1 << 24
MAX_CHARACTERS = 8192
"""Of one prompt; text encoders take far fewer."""


class Prompt(NamedTuple):
    """A prompt of a file, with what the file says beside it, and its line, from 1."""

    text: str
    line: int
    seed: int | None = None
    negative: str | None = None
    image: Path | None = None


class _Fields(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A line of a JSONL file, or a row of a CSV file."""

    prompt: str
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)] | None = None
    negative_prompt: fields.Prompt | None = None
    image: Annotated[str, msgspec.Meta(min_length=1, max_length=4096)] | None = None


def read_prompt_file(path: Path, limit: int | None = None) -> tuple[Prompt, ...]:
    """Return the prompts of a file, or the first `limit` of them.

    Raises:
        UsageError: the file cannot be read, is too large or not UTF-8; a line is malformed, too long or repeats
            another; or there are fewer prompts than asked for. The message names the file and the line.
    """
    text = _text(path)
    parse = _PARSERS.get(path.suffix.lower(), _text_lines)
    prompts: dict[tuple[object, ...], Prompt] = {}
    for prompt in parse(text, path):
        _check_text(prompt, path)
        first = prompts.setdefault(prompt._replace(line=0), prompt)
        if first is not prompt:
            what = f"the prompt of line {first.line} a second time"
            raise _refusal(path, prompt.line, what, "remove one of the two, or give each a seed")
    if len(prompts) < (limit or 1):
        raise UsageError(
            f"{path}: {len(prompts)} prompts, {limit or 1} needed", remedy="add prompts, one a line"
        )
    return tuple(prompts.values())[:limit]


def _text(path: Path) -> str:
    remedy = "give a UTF-8 file, one prompt a line"
    try:
        data = read_limited(path, MAX_BYTES)
    except BudcError as error:
        raise UsageError(f"{path}: cannot read prompts: {error}", remedy=remedy) from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise _refusal(path, line, f"cannot read prompts: not UTF-8 (byte {error.start})", remedy) from error


def _text_lines(text: str, path: Path) -> Iterator[Prompt]:
    for number, line in _lines(text):
        yield Prompt(line, number)


def _json_lines(text: str, path: Path) -> Iterator[Prompt]:
    for number, line in _lines(text):
        try:
            row = msgspec.json.decode(line, type=_Fields)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise _refusal(path, number, str(error), 'write {"prompt": "..."} on each line') from error
        yield _prompt(row, path, number)


def _csv_rows(text: str, path: Path) -> Iterator[Prompt]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] = []
    try:
        for cells in reader:
            if not any(map(str.strip, cells)):
                continue
            if header:
                yield _row(header, cells, path, reader.line_num)
            else:
                header = _header(cells, path, reader.line_num)
    except csv.Error as error:
        raise _refusal(
            path, reader.line_num, f"not CSV: {error}", 'quote a cell that holds a comma or a "'
        ) from error


def _header(cells: list[str], path: Path, line: int) -> list[str]:
    names, known = [cell.strip() for cell in cells], _Fields.__struct_fields__
    for name in names:
        if name not in known or names.count(name) > 1:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near and name not in known else f"columns: {','.join(known)}"
            raise _refusal(path, line, f"{name!r} is no column, or is there twice", hint)
    if "prompt" not in names:
        raise _refusal(path, line, "no column is named prompt", f"begin with the line {','.join(known)}")
    return names


def _row(header: list[str], cells: list[str], path: Path, line: int) -> Prompt:
    if len(cells) != len(header):
        what = f"{len(cells)} cells under {len(header)} columns"
        raise _refusal(path, line, what, "quote a cell that holds a comma")
    # An empty cell says nothing.
    given: dict[str, str | int] = {
        name: cell for name, cell in zip(header, map(str.strip, cells), strict=True) if cell
    }
    seed = given.get("seed")
    if isinstance(seed, str) and seed.isascii() and seed.isdigit() and len(seed) < 20:
        given["seed"] = int(seed)
    try:
        row = msgspec.convert(given, _Fields)
    except msgspec.ValidationError as error:
        raise _refusal(path, line, str(error), "give a prompt; a seed is a whole number") from error
    return _prompt(row, path, line)


def _prompt(row: _Fields, path: Path, line: int) -> Prompt:
    image = None if row.image is None else path.parent / row.image
    return Prompt(row.prompt.strip(), line, row.seed, row.negative_prompt, image)


_PARSERS: dict[str, Callable[[str, Path], Iterator[Prompt]]] = {
    ".csv": _csv_rows,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
}


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank with their numbers, from 1, as an editor counts them."""
    for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1):
        if line.strip():
            yield number, line.strip()


def _check_text(prompt: Prompt, path: Path) -> None:
    if not prompt.text:
        raise _refusal(path, prompt.line, "the prompt is empty", "say what to generate")
    if len(prompt.text) > MAX_CHARACTERS:
        what = f"a prompt of {len(prompt.text)} characters, at most {MAX_CHARACTERS} are taken"
        raise _refusal(path, prompt.line, what, "shorten it, or put one prompt on each line")
    for character in prompt.text:
        if unicodedata.category(character) in ("Cc", "Cs"):
            what = f"the prompt holds a control character (U+{ord(character):04X})"
            raise _refusal(path, prompt.line, what, "remove it")


def _refusal(path: Path, line: int, what: str, remedy: str) -> UsageError:
    return UsageError(f"{path}, line {line}: {what}", remedy=remedy)
