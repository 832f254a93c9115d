"""The command line's ``compare``."""

from typing import get_args

from lightning_edit.commands.arguments import CommandParser
from lightning_edit.commands.comparison import compare
from lightning_edit.commands.comparison.lines import Axis


def main(words: list[str]) -> None:
    """Runs ``compare``.

    Args:
        words: The arguments after the command.
    """
    parser = CommandParser(
        prog="lightning-edit compare",
        description="Compares finished runs in one table and one figure with a line for each method.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders of runs, or folders that hold such folders")
    parser.add_argument(
        "--metric", metavar="NAMES", help="what the figure shows, a panel for each name (S, where it was measured)"
    )
    parser.add_argument("--x", choices=get_args(Axis), default="edits", help="what the figure is drawn against")
    parser.add_argument("--output", default="comparison.png", metavar="FILE", help="the figure (comparison.png)")
    parser.add_argument(
        "--labels", nargs="+", metavar="NAME", help="names in place of the methods' own, one for each run"
    )
    given = parser.parse_args(words)
    compare(given.runs, given.metric, given.x, given.output, given.labels)
