"""docs/report.html: the commands of docs/report.md that made it make a page with the same sections and figures."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SAMPLES = 3
"""Enough for frames of the best, the middle and the worst prompt."""


class Outline(HTMLParser):
    """A page's sections, headings and figures, by tag and id or class."""

    def __init__(self, page):
        super().__init__()
        self.parts = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        if tag in ("section", "h2", "h3", "figure"):
            names = dict(attributes)
            self.parts.append((tag, names.get("id"), names.get("class"), names.get("aria-labelledby")))


def commands():
    """The shell commands of the one block that writes docs/report.html."""
    blocks = re.findall(
        r"^```console\n(.*?)^```$", (ROOT / "docs" / "report.md").read_text("utf-8"), re.M | re.S
    )
    (block,) = [block for block in blocks if "--out docs/report.html" in block]
    assert "--samples 16" in block
    return re.sub(r"^\$ ", "", block, flags=re.M).replace("--samples 16", f"--samples {SAMPLES}")


@pytest.mark.slow
def test_the_commands_make_a_page_of_the_same_outline(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "shown").mkdir()
    (tmp_path / "policies").symlink_to(ROOT / "policies")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["bash", "-euo", "pipefail", "-c", commands()]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    made, shown = (
        Outline((folder / "docs" / "report.html").read_text("utf-8")).parts for folder in (tmp_path, ROOT)
    )
    assert len(shown) > 40
    assert made == shown
