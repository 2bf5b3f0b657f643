"""Paths and names on every page of the documentation against the tree."""

import re

import pytest
from documented_names import ROOT, outdated

from budc.cli.output.summary import quality
from budc.cli.output.verdict import verdict
from budc.policies.embedded_policies import find_embedded
from budc.schema.artifact import read

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


def anchors(page):
    """Return what links may point to on a page: its headings, as GitHub names them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_in_the_navigation():
    trees = re.findall(
        r"^```{toctree}\n(.*?)^```$", (ROOT / "docs" / "index.md").read_text("utf-8"), re.M | re.S
    )
    shown = set(re.findall(r"^(?:.*<)?([\w./-]+)>?$", "\n".join(trees), re.M))
    pages = {
        page.relative_to(ROOT / "docs").with_suffix("").as_posix() for page in (ROOT / "docs").rglob("*.md")
    }
    assert {page for page in pages if not page.startswith("adr/0")} - {"index"} == shown


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_what_the_first_command_says_is_what_its_policy_says():
    policy = read(find_embedded("flux-nano", 10).path).document
    assert f"\n{verdict(policy)}\n" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"\n{verdict(policy)}\n\n{quality(policy)}\n" in (ROOT / "docs" / "start.md").read_text(
        encoding="utf-8"
    )
