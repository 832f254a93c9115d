"""A page as a browser would take it in, by the standard library's parser: elements, texts, ids, links, colors."""

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

INLINE = {"bdi", "mark", "span", "code", "strong", "a"}
VOID = {"meta", "br", "hr", "img", "input", "link", "wbr", "col", "source"}


@dataclass
class Element:
    tag: str
    attributes: dict
    parent: "Element | None"
    children: list = field(default_factory=list)

    @property
    def text(self):
        return " ".join("".join(one if isinstance(one, str) else one.spaced for one in self.children).split())

    @property
    def spaced(self):
        """Its text, apart from that of others where it stands by itself on the page."""
        text = "".join(one if isinstance(one, str) else one.spaced for one in self.children)
        return text if self.tag in INLINE else f" {text} "

    def all(self, tag=None):
        """The elements below this one, in order."""
        for child in self.children:
            if not isinstance(child, str):
                if tag in (None, child.tag):
                    yield child
                yield from child.all(tag)

    def __getitem__(self, name):
        return self.attributes.get(name)


class Page(HTMLParser):
    """A page; fails where an element is not closed as it was opened."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.source, self.root = text, Element("", {}, None)
        self._open = self.root
        self.feed(text)
        self.close()
        assert self._open is self.root, f"<{self._open.tag}> is not closed"

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"<{tag}> has an attribute twice"
        element = Element(tag, dict(attrs), self._open)
        self._open.children.append(element)
        if tag not in VOID:
            self._open = element

    def handle_startendtag(self, tag, attrs):
        self._open.children.append(Element(tag, dict(attrs), self._open))

    def handle_endtag(self, tag):
        assert self._open.tag == tag, f"</{tag}> closes <{self._open.tag}>"
        self._open = self._open.parent

    def handle_data(self, data):
        self._open.children.append(data)

    def all(self, tag=None):
        return list(self.root.all(tag))

    def section(self, heading):
        """The section of a heading."""
        [found] = [one for level in ("h2", "h3", "h4") for one in self.all(level) if one.text == heading]
        while found.tag != "section":
            found = found.parent
        return found


def schemes(css):
    """The custom properties of a style sheet: those of light, of dark and of print."""
    found = {}
    for name, start in (("light", ":root"), ("dark", "prefers-color-scheme: dark"), ("print", "@media print")):
        block = css[css.index(start) :]
        block = block[block.index(":root") : block.index("}")]
        found[name] = dict(re.findall(r"--([a-z0-9-]+):\s*(#[0-9a-f]{6})", block))
    return found


def contrast(one, other):
    """The contrast ratio of WCAG 2.1."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(color):
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
