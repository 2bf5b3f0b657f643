"""A matplotlib figure as SVG for a page: without style attributes, which its content security policy forbids.

Styles become presentation attributes, colours become CSS variables that follow the page's theme, and ids are made
unique on the page.
"""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SVG = "http://www.w3.org/2000/svg"
_XLINK = "{http://www.w3.org/1999/xlink}href"
_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))

COLOURS: Mapping[str, str] = {
    "#010101": "--ink",
    "#020202": "--muted",
    "#030303": "--grid",
    "#040404": "--paper",
    **{f"#0{index:x}0f0f": f"--series-{index}" for index in range(10)},
}
"""What charts are drawn in, and the variables of the page's style sheet that stand for it."""
INK, MUTED, GRID, PAPER, *SERIES = COLOURS
RC = {
    "font.size": 11,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "grid.color": GRID,
    "svg.fonttype": "none",
    "svg.hashsalt": "budc",
}
"""matplotlib's settings for charts."""


def page_svg(figure: Figure, key: str, label: str) -> str:
    """Return a figure as an `<svg>` element for a page.

    Args:
        figure: drawn in the colours of `COLOURS`.
        key: unique on the page; letters, digits and dashes.
        label: what the chart shows, for those who do not see it; any text.
    """
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata=_METADATA, transparent=True)
    root = ET.fromstring(file.getvalue())
    for element in root.iter():
        for style in element.findall(f"{{{_SVG}}}style"):
            element.remove(style)
        _flatten(element)
        _rename(element, key)
    for name in ("width", "height"):
        root.attrib.pop(name, None)
    root.set("role", "img")
    root.set("aria-label", label)
    root.set("stroke-linejoin", "round")
    ET.register_namespace("", _SVG)
    ET.register_namespace("xlink", _XLINK[1:].partition("}")[0])
    return ET.tostring(root, encoding="unicode")


def _flatten(element: ET.Element) -> None:
    """Turn the style attribute into presentation attributes; the font is the page's."""
    for declaration in filter(None, re.split(r";\s*", element.attrib.pop("style", ""))):
        name, _, value = declaration.partition(":")
        if name.strip() != "font-family":
            value = value.strip()
            element.set(name.strip(), f"var({COLOURS[value]})" if value in COLOURS else value)


def _rename(element: ET.Element, key: str) -> None:
    """Put the key before every id and every reference to one."""
    if "id" in element.attrib:
        element.set("id", f"{key}-{element.get('id')}")
    if _XLINK in element.attrib:
        element.set(_XLINK, f"#{key}-{element.get(_XLINK, '').removeprefix('#')}")
    for name, value in element.attrib.items():
        if value.startswith("url(#"):
            element.set(name, f"url(#{key}-{value.removeprefix('url(#')}")
