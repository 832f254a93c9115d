"""The command line's ``report``: finished runs as one HTML file for people who never saw a terminal."""

from argparse import RawDescriptionHelpFormatter
from pathlib import Path

from rich.text import Text

from lightning_edit.commands.arguments import CommandParser
from lightning_edit.errors import EditError
from lightning_edit.messages import terminal

DESCRIPTION = """Writes one HTML file about a finished run: what was changed, ten examples before
and after, the figures in plain words, what got worse, and how to undo it. Several
runs are also compared. The file needs no network and no other file, prints well,
and can be sent to anybody."""
NAME = "report.html"


def main(words: list[str]) -> None:
    """Runs ``report``.

    Args:
        words: The arguments after the command.

    Raises:
        EditError: If a folder is no finished run, or the file cannot be one; nothing is written then.
    """
    parser = CommandParser(
        prog="lightning-edit report", description=DESCRIPTION, formatter_class=RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders, or folders that contain run folders")
    parser.add_argument(
        "--output", metavar="FILE", help=f"where to ({NAME} in the run's folder, for several runs here)"
    )
    given = parser.parse_args(words)
    runs = [Path(run).expanduser() for run in given.runs]
    output = Path(given.output).expanduser() if given.output else _beside(runs)
    if output.suffix.lower() not in (".html", ".htm") or output.is_dir():
        raise EditError(f"`--output` must be a file whose name ends in .html, got {output}.")
    # Drawing takes a second to import; a mistake is answered without it.
    from lightning_edit.report import write_report

    console = terminal()
    for note in write_report(runs, output):
        console.print(Text(f"! {note}", style="yellow"), soft_wrap=True)
    console.print(f"The report is in {output}. Open it in a browser.", soft_wrap=True)


def _beside(runs: list[Path]) -> Path:
    """Where the file goes if that is not said: into the folder of a single run."""
    single = len(runs) == 1 and (runs[0] / "metrics.json").is_file()
    return runs[0] / NAME if single else Path(NAME)
