"""Paths and names on every page of the documentation against the tree."""

import pytest
from documented_names import ROOT, outdated

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "policies" / "nano" / "README.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_and_names_exist(page):
    assert outdated(page) == []


def test_what_does_not_exist_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "`compiler/forest.py`, `compiler/forest/`, `budc.compiler.forest`, `policy.budc.json`, `budc.apply`",
        encoding="utf-8",
    )
    assert outdated(page) == ["compiler/forest.py", "compiler/forest/", "budc.compiler.forest"]


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
