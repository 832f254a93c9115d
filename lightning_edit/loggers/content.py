"""What a finished run has to show, whichever logger shows it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

Setting = str | float | bool
# What may mean something in Markdown, or in HTML inside of it.
_MARKUP = str.maketrans({sign: f"&#{ord(sign)};" for sign in "&\\`*_{}[]<>()#+-.!|~$"})


@dataclass(frozen=True)
class Table:
    """A table of texts and numbers.

    Args:
        name: What it is called in a logger.
        title: What it shows, in a line.
        columns: The names of its columns.
        rows: Its rows, as long as the columns.
        note: How its rows were chosen.
        wide: So many of its columns, the last ones, are left out where there is little room.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    wide: int = 0

    def markdown(self) -> str:
        """The table for a page that reads Markdown; whatever stands in it is text."""
        lines = [f"### {escaped(self.title)}", ""]
        lines += [f"{escaped(self.note)}", ""] if self.note else []
        room = len(self.columns) - self.wide
        lines += [_row(self.columns[:room]), "|" + "---|" * room, *(_row(row[:room]) for row in self.rows)]
        return "\n".join(lines)


@dataclass(frozen=True)
class RunContent:
    """All that a finished run shows once.

    Args:
        overview: What the run did and what came of it, as Markdown.
        tables: Such as the edits with the answers before and after.
        pictures: PNG files by name.
        settings: The method's settings and those of the data, under dotted names.
        figures: The names of the few figures by which runs are compared, as loggers have them.
        page: The run's report, a file that needs no other; None where no logger keeps files.
    """

    overview: str
    tables: Sequence[Table] = ()
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    settings: Mapping[str, Setting] = field(default_factory=dict)
    figures: Sequence[str] = ()
    page: Path | None = None


def escaped(text: str) -> str:
    """A text as Markdown that shows it as it is, in one line.

    Args:
        text: Any text.
    """
    return " ".join(text.split()).translate(_MARKUP)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(escaped, cells))} |"
