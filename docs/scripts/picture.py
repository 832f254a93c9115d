"""Makes a picture of the tables that a run prints: ``make quickstart | python docs/scripts/picture.py FILE.svg``."""

import io
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

THEME = TerminalTheme(
    (250, 250, 252),
    (36, 41, 60),
    [
        (36, 41, 60),
        (190, 40, 40),
        (30, 130, 60),
        (160, 120, 0),
        (64, 81, 181),
        (140, 60, 150),
        (0, 120, 140),
        (90, 90, 90),
    ],
)
COLORS = (("[┏┓┗┛┡┩━┳┻╇│┃┌┐└┘├┤─┼┴┬]", "#a0a6c8"), (r"->", "#4051b5"), (r"(?<=-> )-?\d+\.\d", "bold #1e823c"))


def tables_of(printed: str) -> list[str]:
    """The lines from the first frame to the last, without the blanks around titles."""
    lines = printed.replace("\r", "\n").split("\n")
    frames = [number for number, line in enumerate(lines) if line.startswith(("┏", "└"))]
    return [line.rstrip() for line in lines[frames[0] : frames[-1] + 1]]


def picture(lines: list[str]) -> str:
    """An SVG of a terminal, with no font from elsewhere."""
    console = Console(record=True, file=io.StringIO(), width=max(map(len, lines)) + 1)
    for line in ["$ make quickstart", *lines]:
        text = Text(line)
        for pattern, style in COLORS:
            text.highlight_regex(pattern, style)
        console.print(text)
    svg = console.export_svg(title="Lightning Edit", theme=THEME, unique_id="quickstart")
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    return svg.replace("Fira Code, monospace", "ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(picture(tables_of(sys.stdin.read())), encoding="utf-8")
