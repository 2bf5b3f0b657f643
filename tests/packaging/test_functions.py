"""The size of the product's functions: what takes more parameters or lines than these is split."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("schema", "policies", "runtimes", "compiler", "src/budc")
PARAMETERS, LINES = 7, 60

# Calls that users write, keyword by keyword, and a graph whose inputs the exporter names after its parameters.
MANY_PARAMETERS = {
    "compiler/api.py:compile_policy",
    "compiler/evaluate_folder.py:evaluate_folder",
    "compiler/evaluate_network.py:evaluate",
    "compiler/network/transfer.py:transfer_policy",
    "compiler/network/run.py:run",
    "compiler/network/run.py:steps",
    "compiler/export/denoiser.py:forward",
}


def functions(source):
    return [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def is_command(function):
    """Whether click calls it, with an argument for each option."""
    return any("click." in ast.unparse(decorator) for decorator in function.decorator_list)


def parameters(function):
    given = function.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    own = [argument for argument in named if argument.arg not in ("self", "cls")]
    return len(own) + (given.vararg is not None) + (given.kwarg is not None)


def lines(function):
    return function.end_lineno - function.lineno + 1


def lines_without_signature(function):
    return function.end_lineno - function.body[0].lineno + 1


def too_large(source, name):
    """Return what is wrong with a module's functions; `name`: its path."""
    found = []
    for function in functions(source):
        which = f"{name}:{function.name}"
        count = parameters(function)
        # The constructor of data takes what the data has.
        named = which in MANY_PARAMETERS or is_command(function) or function.name == "__init__"
        if count > PARAMETERS and not named:
            found.append(f"{which} takes {count} parameters")
        count = lines_without_signature(function) if which in MANY_PARAMETERS else lines(function)
        if count > LINES:
            found.append(f"{which} has {count} lines")
    return found


@pytest.mark.parametrize("folder", FOLDERS)
def test_functions_are_small(folder):
    paths = sorted((ROOT / folder).rglob("*.py"))
    assert paths
    found = [
        mistake
        for path in paths
        for mistake in too_large(path.read_text(encoding="utf-8"), str(path.relative_to(ROOT)))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("source", "mistake"),
    [
        ("def f(a, b, c, d, e, f, g, h): pass", "m.py:f takes 8 parameters"),
        ("class C:\n def f(self, a, b, c, d, e, *f, g, **h): pass", "m.py:f takes 8 parameters"),
        ("async def f():\n" + "    pass\n" * 60, "m.py:f has 61 lines"),
    ],
)
def test_what_is_too_large_is_found(source, mistake):
    assert too_large(source, "m.py") == [mistake]


@pytest.mark.parametrize(
    "source",
    [
        "class C:\n def f(self, a, b, c, d, e, f, g): pass",
        "@click.command()\ndef f(a, b, c, d, e, f, g, h): pass",
        "def f():\n" + "    pass\n" * 59,
    ],
)
def test_what_is_small_is_accepted(source):
    assert too_large(source, "m.py") == []


def test_each_exception_is_one():
    for which in MANY_PARAMETERS:
        path, name = which.split(":")
        named = [node for node in functions((ROOT / path).read_text(encoding="utf-8")) if node.name == name]
        assert any(parameters(node) > PARAMETERS for node in named), which
