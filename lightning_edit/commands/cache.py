"""The command line's ``cache``: what is kept, whether it is sound, and how to be rid of it."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.filesize import decimal
from rich.progress import Progress
from rich.prompt import Confirm
from rich.table import Column, Table
from rich.text import Text

from lightning_edit.commands.arguments import CommandParser
from lightning_edit.errors import EditError
from lightning_edit.messages import terminal
from lightning_edit.storage.cache import OLD_FORMAT, Cache, DamagedError, Entry, check, delete

DEFAULT_FOLDER = "~/.cache/lightning_edit"
MANY = "judgement"  # One for each answer: too many to list.
KINDS = ("second-moment", "second-moment-part", "values", MANY)
DAY = 24 * 3600.0
UNITS = (("days", DAY), ("hours", 3600.0), ("minutes", 60.0))


def main(args: list[str]) -> None:
    """Runs ``cache list``, ``cache verify`` or ``cache clear``.

    Args:
        args: The arguments after ``cache``.

    Raises:
        EditError: If a setting makes no sense.
        SystemExit: With status 1 if a file is damaged or foreign.
    """
    given = _parser().parse_args(args)
    cache = Cache(given.folder)
    if given.folder != DEFAULT_FOLDER and not cache.folder.is_dir():
        raise EditError(f"`--folder`: there is no folder {given.folder}. Give the `cache_dir` of a run.")
    if given.command == "list":
        show(cache)
    elif given.command == "verify":
        if not verify(cache):
            sys.exit(1)
    else:
        clear(cache, given.kind, given.older_than, given.yes)


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="lightning-edit cache", description="Shows, checks or clears the second moments and values kept on disk."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="list cached results, newest first")
    verifying = commands.add_parser("verify", help="read every file and report damaged or foreign ones")
    clearing = commands.add_parser("clear", help="delete files, and unfinished ones of killed runs")
    for command in (listing, verifying, clearing):
        command.add_argument("--folder", default=DEFAULT_FOLDER, help=f"folder of the cache ({DEFAULT_FOLDER})")
    clearing.add_argument("--kind", choices=KINDS, help="only files of this kind")
    clearing.add_argument("--older-than", type=float, metavar="DAYS", help="only files older than this")
    clearing.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    return parser


def show(cache: Cache) -> None:
    """Prints what is kept.

    Args:
        cache: The cache.
    """
    entries, console, now = cache.entries(), _console(), time.time()
    table = Table("kind", "what", Column("size", justify="right"), Column("age", justify="right"), box=None)
    judged = [entry for entry in entries if entry.kind == MANY]
    for entry in entries:
        if entry.kind != MANY:
            table.add_row(entry.kind, _what(entry), decimal(entry.size), _age(now - entry.made))
    if judged:
        size, what = decimal(sum(entry.size for entry in judged)), _count(len(judged), "answers") + " marked by a judge"
        table.add_row(MANY, what, size, _age(now - judged[0].made))
    if entries:
        console.print(table)
    line = f"{_files(entries)} in {cache.folder}"
    if leftovers := cache.leftovers():
        line += f", and {_count(len(leftovers), 'unfinished files')} of killed runs, which `cache clear` deletes"
    console.print(Text(line), soft_wrap=True)


def verify(cache: Cache) -> bool:
    """Reads every file and prints which are not what was written.

    Args:
        cache: The cache.

    Returns:
        Whether all is sound; files of the older format are said and do no harm.
    """
    entries, problems, old = cache.entries(), 0, 0
    console, progress = _console(), Progress(console=terminal(stderr=True), transient=True)
    with progress:
        task = progress.add_task("reading", total=sum(entry.size for entry in entries))
        for entry in entries:
            problem = _problem(entry.path)
            old += problem == OLD_FORMAT
            problems += problem not in (None, OLD_FORMAT)
            if problem is not None:
                console.print(Text(f"{entry.path}: {problem}"), soft_wrap=True)
            progress.advance(task, entry.size)
    foreign = cache.foreign()
    for path in foreign:
        console.print(Text(f"{path}: it is not a file of the cache"), soft_wrap=True)
    counts = {"sound": len(entries) - problems - old, "damaged": problems, "old format": old, "foreign": len(foreign)}
    console.print(Text(", ".join(f"{count} {name}" for name, count in counts.items() if count or name == "sound")))
    return not problems and not foreign


def _problem(path: Path) -> str | None:
    try:
        check(path)
    except FileNotFoundError:
        # Cleared by another process meanwhile.
        return None
    except (DamagedError, OSError) as error:
        return str(error)
    return None


def clear(cache: Cache, kind: str | None = None, older_than: float | None = None, yes: bool = False) -> None:
    """Deletes files, and what killed writers left; what is not of the cache stays.

    Args:
        cache: The cache.
        kind: Only files of this kind.
        older_than: Only files made so many days ago.
        yes: Whether to delete without asking.

    Raises:
        EditError: If there is nobody to ask.
    """
    if older_than is not None and not older_than >= 0:
        raise EditError(f"`--older-than` must be a number of days, got {older_than}.")
    before = time.time() - (older_than or 0) * DAY
    entries = [entry for entry in cache.entries() if kind in (None, entry.kind)]
    if older_than is not None:
        entries = [entry for entry in entries if entry.made < before]
    leftovers, console = cache.leftovers(), _console()
    if not entries and not leftovers:
        console.print(Text(f"Nothing to delete in {cache.folder}"), soft_wrap=True)
        return
    what = _files(entries) + (f" and {_count(len(leftovers), 'unfinished files')}" if leftovers else "")
    if not yes:
        if not sys.stdin.isatty():
            raise EditError(
                f"`cache clear` would delete {what} in {cache.folder}. There is no terminal to ask on: give --yes."
            )
        if not Confirm.ask(Text(f"Delete {what} in {cache.folder}?"), console=console, default=False):
            return
    for path in [*(entry.path for entry in entries), *leftovers]:
        delete(path)
    console.print(Text(f"Deleted: {what}"))


def _what(entry: Entry) -> Text:
    """What an entry was made from: texts as they are, numbers with their names; details are left to the file."""
    if entry.problem is not None:
        return Text("old format" if entry.problem == OLD_FORMAT else f"damaged: {entry.problem}", style="yellow")
    described = {name: value for name, value in entry.described.items() if value != "" and not isinstance(value, dict)}
    if "model" in described:
        # The name of a model on a hub has two parts; of a folder the last two tell enough.
        described["model"] = "/".join(Path(str(described["model"])).parts[-2:])
    words = (_count(value, name) if isinstance(value, int) else str(value) for name, value in described.items())
    return Text(", ".join(words))


def _files(entries: Sequence[Entry]) -> str:
    return f"{_count(len(entries), 'files')} ({decimal(sum(entry.size for entry in entries))})"


def _count(number: int, things: str) -> str:
    return f"{number:,} {things.removesuffix('s') if number == 1 else things}"


def _age(seconds: float) -> str:
    for name, length in UNITS:
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {name}"
    return f"{max(seconds, 0):.0f} seconds"


def _console() -> Console:
    console = terminal()
    if not console.is_terminal:
        # A pipe or file has no width that the table would have to fit.
        console.width = 1000
    return console
