"""The documentation as a site: it is built without a warning, without torch, and its pages load nothing from elsewhere."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

import budc
from budc.cli.root import root

ROOT = Path(__file__).parents[2]
BUILD = """
import sys
from sphinx.cmd.build import main
code = main(sys.argv[1:])
heavy = {"torch", "numpy", "diffusers", "transformers", "onnxruntime"} & {*sys.modules}
assert not heavy, heavy
sys.exit(code)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    options = [
        "-q",
        "-W",
        "--keep-going",
        "-d",
        str(folder / "doctrees"),
        str(ROOT / "docs"),
        str(folder / "html"),
    ]
    command = [sys.executable, "-c", BUILD, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return folder / "html"


pytestmark = pytest.mark.slow


def test_every_page_is_in_the_navigation(site):
    start = (site / "index.html").read_text(encoding="utf-8")
    linked = set(re.findall(r'href="([\w./-]+)\.html"', start))
    pages = {
        path.relative_to(ROOT / "docs").with_suffix("").as_posix() for path in (ROOT / "docs").rglob("*.md")
    }
    assert {page for page in pages if not page.startswith("adr/0") and page != "index"} <= linked


def test_commands_and_public_names_are_all_in_the_reference(site):
    commands = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    assert [
        name for name in root.list_commands(click.Context(root)) if f'id="budc-{name}"' not in commands
    ] == []
    assert 'id="cmdoption-budc-compile-budget"' in commands
    names = (site / "reference" / "python.html").read_text(encoding="utf-8")
    assert [name for name in budc.__all__ if name not in ("__version__",) and f">{name}<" not in names] == []


def test_formulas_are_mathml_and_pages_load_nothing_from_elsewhere(site):
    assert (site / "concepts.html").read_text(encoding="utf-8").count("<math") > 10
    for path in site.rglob("*.html"):
        page = path.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|img|link|iframe)[^>]+(?:src|href)="(https?:)?//', page)
        assert loaded == [], path
        assert "$$" not in re.sub(r"<pre>.*?</pre>|<code.*?</code>", "", page, flags=re.S), path


def test_the_search_finds_a_term(site):
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    terms = json.loads(index.removeprefix("Search.setIndex(").removesuffix(")"))["terms"]
    assert "sigma" in terms


def test_a_file_has_its_name_above_it_and_a_flag_two_dashes(site):
    page = (site / "tutorials" / "flux.html").read_text(encoding="utf-8")
    assert '<span class="caption-text">generate.py</span>' in page
    commands = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    assert re.search(r"[\u2013\u2014]\w", commands) is None
