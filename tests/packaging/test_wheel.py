"""What is in the wheel: a checkout without its links builds one that looks fine and is empty."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "src", "schema", "compiler", "runtimes", "policies")


def build(root, target):
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target), str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (wheel,) = target.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """The files of a wheel built from a copy of the checkout, so that nothing is left in it."""
    root = tmp_path_factory.mktemp("checkout")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", ".*")
            shutil.copytree(source, root / name, symlinks=True, ignore=ignore)
        else:
            shutil.copy(source, root / name)
    return build(root, tmp_path_factory.mktemp("dist"))


@pytest.mark.parametrize("package", ["schema", "compiler", "runtimes", "policies"])
def test_every_module_of_the_linked_packages_is_inside(names, package):
    modules = {f"budc/{path.relative_to(ROOT)}" for path in (ROOT / package).rglob("*.py")}
    assert modules
    assert modules <= names


def test_the_data_files_are_inside(names):
    patterns = ("policies/*.toml", "policies/prompts/*.txt", "schema/*.json")
    patterns += ("policies/nano/models/**/*", "policies/nano/policies/*")
    for pattern in patterns:
        wanted = {f"budc/{path.relative_to(ROOT)}" for path in ROOT.glob(pattern) if path.is_file()}
        assert wanted, pattern
        assert wanted <= names
    assert "budc/py.typed" in names


def test_the_page_of_a_report_is_inside(names):
    folder = ROOT / "src" / "budc" / "cli" / "report" / "templates"
    wanted = {f"budc/cli/report/templates/{path.name}" for path in folder.iterdir()}
    assert len(wanted) == 3
    assert wanted <= names


def test_nothing_else_is_inside(names):
    outside = {name for name in names if not name.startswith(("budc/", "budc-"))}
    assert outside == set()
    assert not any("tests/" in name or name.endswith(".pyc") for name in names)
