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
        description="Compares finished runs in a table and a figure with a line for each method.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders, or folders that contain run folders")
    parser.add_argument(
        "--metric",
        metavar="NAMES",
        help="metrics to plot, a panel for each; separate them with commas (S, if it was measured)",
    )
    parser.add_argument("--x", choices=get_args(Axis), default="edits", help="the x-axis of the figure")
    parser.add_argument(
        "--output",
        "--figure",
        default="comparison.png",
        metavar="FILE",
        help="where to save the figure: .png, .pdf or .svg (comparison.png)",
    )
    parser.add_argument("--table", metavar="FILE", help="also save the table: .tex, .csv or .md")
    parser.add_argument(
        "--significance", action="store_true", help="test each pair of methods over the records that both have"
    )
    parser.add_argument(
        "--zoom", action="store_true", help="make the axes of percentages as short as possible, not 0 to 100"
    )
    parser.add_argument(
        "--labels",
        nargs="+",
        metavar="NAME",
        help="labels in place of names and methods, one for each row",
    )
    given = parser.parse_args(words)
    how = (given.table, given.significance, given.zoom)
    compare(given.runs, given.metric, given.x, given.output, given.labels, *how)
