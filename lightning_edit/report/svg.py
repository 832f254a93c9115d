"""Figures as SVG inside a page: its colors are the page's own, light or dark, and its texts the page's font."""

import io
import re
from xml.etree import ElementTree

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure

from lightning_edit.commands.comparison.figure import COLORS

# What a figure is drawn in, and the names of the page's colors for it.
TEXT, GRID, PAGE = "#000000", "#dddddd", "#ffffff"
VARIABLES = {
    **{color.lower(): f"var(--series-{number})" for number, color in enumerate(COLORS, start=1)},
    TEXT: "currentColor",
    GRID: "var(--grid)",
    PAGE: "var(--surface)",
}
_COLOR = re.compile(r"#[0-9a-fA-F]{6}")
_FONT = re.compile(r"font(-family)?:[^;]*(;\s*|$)")
_SIZE = re.compile(r"([\d.]+)px")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")


def inline(figure: Figure, name: str, label: str) -> Markup:
    """A figure as an ``<svg>`` element.

    Args:
        figure: The figure, drawn in the colors of `VARIABLES` alone.
        name: What makes its ids its own on the page; letters, digits and hyphens.
        label: What it shows, for those who cannot see it.
    """
    written = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(written, format="svg", transparent=True)
    root = ElementTree.fromstring(written.getvalue())
    for element in root.iter():
        _make_plain(element)
    _drop(root, {"metadata", "style"})
    _own_ids(root, name)
    for size in ("width", "height", "version"):
        root.attrib.pop(size, None)
    root.attrib |= {"class": "chart", "role": "img", "aria-label": label}
    # Written by matplotlib and escaped by the XML library, whatever stands in the labels.
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _make_plain(element: ElementTree.Element) -> None:
    """Takes away namespaces, which HTML knows by itself, and colors and fonts, which are the page's."""
    element.tag = element.tag.rpartition("}")[2]
    for key in list(element.attrib):
        value = element.attrib.pop(key)
        if key == "style":
            value = _style(value)
        element.attrib[key.rpartition("}")[2]] = value


def _style(style: str) -> str:
    size = _SIZE.search(style) if "font:" in style else None
    kept = _FONT.sub("", style).strip().rstrip(";")
    kept = f"font-size: {size[1]}px; {kept}" if size else kept
    return _COLOR.sub(lambda match: VARIABLES[match.group().lower()], kept)


def _drop(element: ElementTree.Element, tags: set[str]) -> None:
    for child in list(element):
        if child.tag in tags:
            element.remove(child)
        else:
            _drop(child, tags)


def _own_ids(root: ElementTree.Element, name: str) -> None:
    """Keeps the ids that something refers to, and makes them differ from those of other figures on the page."""
    values = [value for element in root.iter() for value in element.attrib.values()]
    used = {found for value in values for found in _REFERENCE.findall(value)}
    used |= {element.attrib["href"][1:] for element in root.iter() if "href" in element.attrib}
    for element in root.iter():
        for key, value in list(element.attrib.items()):
            if key == "id":
                if value in used:
                    element.attrib[key] = f"{name}-{value}"
                else:
                    del element.attrib[key]
            elif key == "href":
                element.attrib[key] = f"#{name}-{value[1:]}"
            else:
                element.attrib[key] = _REFERENCE.sub(rf"url(#{name}-\1)", value)
