"""docs/glossary.md against the tree: the home of every term exists."""

import re

from documented_names import ROOT, blocks, is_file, is_name, mistakes

PAGE = ROOT / "docs" / "glossary.md"
WANTED = {
    *("payload", "cached", "trunk residual", "velocity", "reference run", "full run", "mask", "schedule"),
    *("step machine", "predictor", "coefficients", "NFE", "forward", "budget", "branch", "guidance"),
    *("calibration prompts", "held-out prompts", "arbitration", "alignment", "finalist", "variant"),
    *("tensor root", "trust file", "settings check", "uncalibrated"),
}


def test_every_module_and_name_of_the_page_exists():
    assert mistakes(PAGE) == []


def test_every_term_is_explained_and_has_a_home():
    entries = re.findall(r"^\*\*(.+?)\*\*: ", PAGE.read_text(encoding="utf-8"), re.M)
    assert len(entries) == len(set(entries))
    assert set(entries) >= WANTED
    homes = [codes for codes in blocks(PAGE) if any(map(is_file, codes)) and any(map(is_name, codes))]
    assert len(homes) == len(entries)
