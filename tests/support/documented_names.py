"""Folders, modules and names that a page of the documentation mentions, looked up in the tree without importing it."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("schema", "policies", "runtimes", "compiler", "src/budc/cli")

_TOP = {path.name for path in ROOT.iterdir()}
_PYTHON = tuple(f"budc.{room}." for room in ("schema", "policies", "runtimes", "compiler", "cli"))
_FENCE = re.compile(r"^```.*?^```$", re.M | re.S)
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_CODE = re.compile(r"`([^`\n]+)`")
_FILE = re.compile(r"[\w.-]+(/[\w.-]+)*\.(py|toml|json|md|png)")
_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def blocks(page: Path) -> Iterator[list[str]]:
    """Yield what stands between backticks, for every paragraph and every row of a table."""
    text = _LINK.sub(r"\1", _FENCE.sub("", page.read_text(encoding="utf-8")))
    for block in re.split(r"\n\s*\n|\n(?=\||- )", text):
        if codes := _CODE.findall(block.replace("\n", " ")):
            yield codes


def is_folder(code: str) -> bool:
    """Return whether this is how pages write a folder: a path that ends in a slash."""
    return code.endswith("/")


def is_file(code: str) -> bool:
    """Return whether this is how pages write a file of the tree."""
    return _FILE.fullmatch(code) is not None


def is_name(code: str) -> bool:
    """Return whether this is how pages write a function, a class or a method."""
    return _NAME.fullmatch(code) is not None and not is_file(code)


@cache
def names_of(module: Path) -> frozenset[str]:
    """Return what a module defines: functions, classes, constants, and `Class.member`; of a package, what it exports."""
    names = set()
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        names |= _targets(node)
        if module.name == "__init__.py" and isinstance(node, ast.ImportFrom):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{member}" for part in node.body for member in _targets(part)}
    return frozenset(names)


def public_names() -> set[str]:
    """Return what `budc` exports."""
    tree = ast.parse((ROOT / "src/budc/__init__.py").read_text(encoding="utf-8"))
    (names,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    return set(names)


def resolves(name: str) -> bool:
    """Return whether `budc.package.module.name` is a public name, a module, or defined in its module."""
    parts = name.split(".")[1:]
    if len(parts) == 1 and parts[0] in public_names():
        return True
    for length in range(len(parts), 0, -1):
        path = ROOT.joinpath("src", "budc", *parts[:length])
        module = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if module.is_file():
            return length == len(parts) or ".".join(parts[length:]) in names_of(module)
    return False


def mistakes(page: Path) -> list[str]:
    """Return every folder, file and name of a page that is not in the tree; names belong to a file of their block."""
    wrong = []
    for codes in blocks(page):
        files = [code for code in codes if is_file(code)]
        wrong += [code for code in codes if is_folder(code) and not (ROOT / code).is_dir()]
        wrong += [code for code in files if not (ROOT / code).is_file()]
        defined = {
            name
            for code in files
            if code.endswith(".py") and (ROOT / code).is_file()
            for name in names_of(ROOT / code)
        }
        for code in filter(is_name, codes):
            if not (resolves(code) if code.startswith("budc.") else code in defined):
                wrong.append(code)
    return wrong


def outdated(page: Path) -> list[str]:
    """Return paths of the tree and `budc.` names on any page that do not exist; other names are left alone."""
    wrong = []
    for code in (code for codes in blocks(page) for code in codes):
        if code.partition("/")[0] in _TOP and (is_folder(code) or is_file(code)):
            wrong += [] if (ROOT / code).exists() else [code]
        elif is_name(code) and code.startswith(_PYTHON):
            wrong += [] if resolves(code) else [code]
    return wrong


def rooms() -> set[str]:
    """Return every folder of the tree that holds modules, as pages write it."""
    return {
        f"{folder.relative_to(ROOT).as_posix()}/"
        for top in ROOMS
        for folder in (ROOT / top, *(ROOT / top).rglob("*/"))
        if any(folder.glob("*.py"))
    }


def _targets(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Assign):
        return {target.id for target in node.targets if isinstance(target, ast.Name)}
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return {node.target.id}
    return set()
