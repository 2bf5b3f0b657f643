"""The page as a browser would parse it: nothing of a file becomes markup, and nothing is loaded."""

import base64
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from shown_policies import MARKUP

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")


class Parsed(HTMLParser):
    """Tags, attributes and texts of a page; texts of scripts and styles by tag."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.texts, self.raw = [], [], [], {}
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, *attribute) for attribute in attributes]

    def handle_data(self, text):
        if self.tags and self.tags[-1] in ("script", "style") and self.cdata_elem:
            self.raw.setdefault(self.tags[-1], []).append(text)
        else:
            self.texts.append(text)


@pytest.fixture(scope="module")
def page(marked_up, tmp_path_factory):
    from budc.cli.report.page import report_page
    from budc.cli.report.sources import read_sources
    from budc.schema.trust import Trust

    return report_page(read_sources([marked_up], [], Trust(keys=()), must_verify=False), "0").decode()


@pytest.fixture(scope="module")
def parsed(page):
    return Parsed(page)


def test_markup_in_a_file_is_shown_as_text(page, parsed):
    assert "img" not in parsed.tags
    assert "b" not in parsed.tags
    assert not any(name.startswith("on") for _, name, _ in parsed.attributes)
    text = "".join(parsed.texts)
    # Annotation, choice, version, device, setting, method, unit.
    assert text.count(MARKUP) >= 10


def test_no_style_attributes_and_nothing_from_a_network(page, parsed):
    assert not any(name == "style" for _, name, _ in parsed.attributes)
    sources = [
        value
        for _, name, value in parsed.attributes
        if name in ("src", "href", "xlink:href", "data", "action")
    ]
    assert sources
    assert all(value.startswith(("#", "data:image/webp;base64,")) for value in sources)
    assert set(re.findall(r"https?://[^\s\"'<]+", page)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def test_the_policy_of_the_page_allows_its_own_style_and_script_alone(parsed):
    (policy,) = [
        value for _, name, value in parsed.attributes if name == "content" and "default-src" in value
    ]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy

    def source(text):
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    style, script = "".join(parsed.raw["style"]), parsed.raw["script"][-1]
    assert f"style-src {source(style)}" in policy
    assert f"script-src {source(script)}" in policy


def test_ids_are_unique_and_references_lead_to_one(parsed):
    ids = [value for _, name, value in parsed.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    references = [
        value[1:]
        for tag, name, value in parsed.attributes
        if name in ("href", "xlink:href") and tag != "image"
    ]
    references += [value[5:-1] for _, _, value in parsed.attributes if value and value.startswith("url(#")]
    labels = [value for _, name, value in parsed.attributes if name == "aria-labelledby"]
    assert set(references) | set(labels) <= set(ids)


def test_every_figure_has_its_numbers(parsed):
    data = json.loads(parsed.raw["script"][0])
    assert {key for key in data if key.startswith("compared-1")} == {
        "compared-1-latent-mse-evaluations",
        "compared-1-psnr-evaluations",
    }
    assert "compared-2-psnr-seconds" in data
    psnr = data["compared-1-psnr-evaluations"]
    by_name = {row[0]: dict(zip(psnr["columns"], row, strict=True)) for row in psnr["rows"]}
    assert by_name["tiny-nfe3"]["mean"] == 36
    assert by_name["tiny-nfe3"]["worst"] == 27
    assert [row[:3] for row in psnr["rows"] if row[0] == "fewer steps"] == [
        ["fewer steps", 3, 31],
        ["fewer steps", 4, 32],
    ]
    tail = data["compared-2-psnr-tail"]
    assert [row[2] for row in tail["rows"][:4]] == [34, 32, 30, 28]
    mask = data["policy-1-mask"]
    assert [row[4] for row in mask["rows"]] == ["yes", "no"] * 3


def test_frames_are_shown_of_the_policy_that_has_some(page, parsed):
    pictures = [value for tag, name, value in parsed.attributes if (tag, name) == ("image", "href")]
    assert len(pictures) == 6
    assert all(base64.b64decode(uri.partition(",")[2])[8:12] == b"WEBP" for uri in pictures)
    data = json.loads(parsed.raw["script"][0])
    (key,) = [key for key in data if key.endswith("-frames")]
    assert key == "policy-1-frames"
    assert [row[:2] + row[-1:] for row in data[key]["rows"]] == [
        ["best", 4, 34],
        ["median", 3, 32],
        ["worst", 2, 30],
    ]
    text = " ".join("".join(parsed.texts).split())
    assert "Best prompt: PSNR 34 dB" in text
    assert "scaled down from 64 × 64 to 16 × 16; 3 of 9 frames" in text
    # The other policy has none, and is told how to get some.
    assert text.count("An artifact has no pictures") == 1


def test_the_verdict_comes_first(parsed):
    text = "".join(parsed.texts)
    sentence = "tiny-nfe4: 4 of 6 evaluations: PSNR 37.0"
    assert sentence in " ".join(text.split())
    assert text.index("3 of 6 evaluations") < text.index("Everything is measured")
    assert "the loop took 2.5 times less on" in text
    assert "Not verified" in text


def test_colours_follow_the_theme(page):
    drawn = set(re.findall(r'(?:fill|stroke)="([^"]+)"', page))
    assert "var(--series-0)" in drawn
    assert all(colour == "none" or colour.startswith("var(--") for colour in drawn)


def test_torch_is_not_imported(sealed, tmp_path):

    script = (
        "import sys; from budc.cli import main; code = main(sys.argv[1:]); "
        "assert not {'torch', 'diffusers', 'transformers'} & sys.modules.keys(); sys.exit(code)"
    )
    out = tmp_path / "report.html"
    command = [sys.executable, "-W", "error", "-c", script, "report", str(sealed()), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"wrote {out}: 1 policy, ")
    assert out.stat().st_size < 5_000_000
