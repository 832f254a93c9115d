"""The code blocks of a Markdown page, each with what the comment before it says of running it."""

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from markdown_it import MarkdownIt

REPOSITORY = Path(__file__).parents[2]
PAGES = [
    REPOSITORY / "README.md",
    *sorted(page for page in (REPOSITORY / "docs").rglob("*.md")),
]
REMARK = re.compile(r"<!-- (parsed only|not run|needs): (.+) -->")
LANGUAGES = ("bash", "python", "yaml", "text")


@dataclass
class Block:
    """A fenced block.

    Args:
        language: What it is written in.
        text: Its content.
        page: The file.
        line: Where its content begins, counted from 1.
        how: ``run``, ``parsed only`` or ``not run``; what needs a package that is missing is parsed only.
        output: What a Python block is to print; None if the page does not say.
    """

    language: str
    text: str
    page: Path
    line: int
    how: str = "run"
    output: str | None = None

    @property
    def place(self) -> str:
        """File and line, for messages."""
        return f"{self.page.relative_to(REPOSITORY)}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """All blocks of a page in their order."""
    found: list[Block] = []
    how, before = "run", None
    for token in MarkdownIt().parse(page.read_text(encoding="utf-8")):
        if token.type == "html_block":
            how = _how(token.content)
            continue
        if token.type != "fence":
            # The end of a paragraph says nothing; its beginning parts a block from what stands before.
            if token.nesting >= 0:
                before = None
            continue
        language = token.info.strip()
        if language == "text" and before is not None and before.language == "python":
            before.output = token.content
        block = Block(language, token.content, page, token.map[0] + 2, how)
        found.append(block)
        how, before = "run", block
    return found


def _how(comment: str) -> str:
    """How the next block is treated, from the comment before it."""
    remark = REMARK.match(comment)
    if remark is None:
        return "run"
    if remark[1] != "needs":
        return remark[1]
    return "run" if find_spec(remark[2]) else "parsed only"
