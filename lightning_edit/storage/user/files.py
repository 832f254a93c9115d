"""Files that a user brings, read within bounds; what is wrong is said with its place: file, line, column or field."""

import csv
import stat
from collections.abc import Container, Iterator
from contextlib import contextmanager
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import TextIO

from lightning_edit.errors import EditError
from lightning_edit.messages import quoted

LARGEST = 2**30
LONGEST_LINE = 2**26
SPACES = " \r\n"
KINDS_OF_FILE = (
    (stat.S_ISFIFO, "a pipe, which can be read only once: write what comes out of it to a file"),
    (stat.S_ISSOCK, "a socket"),
    (lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode), "a device"),
    (stat.S_ISDIR, "a folder"),
)
BEGINNINGS = {
    b"PK\x03\x04": "a zip archive or an office document: save a table as CSV (UTF-8), unpack an archive",
    b"\xd0\xcf\x11\xe0": "an old Excel or Word document: save the table as CSV (UTF-8)",
    b"\x1f\x8b": "packed by gzip: unpack it",
    b"\x28\xb5\x2f\xfd": "packed by zstd: unpack it",
    b"BZh": "packed by bzip2: unpack it",
    b"\xfd7zXZ": "packed by xz: unpack it",
    b"PAR1": "a Parquet file: name it .parquet",
    b"GGUF": "a model in llama.cpp's format",
    b"%PDF": "a PDF document",
    b"SQLite format 3": "an SQLite database",
    b"\xff\xfe": "UTF-16 text: save it as UTF-8",
    b"\xfe\xff": "UTF-16 text: save it as UTF-8",
}


def check_file(path: str | Path, named: str = "") -> Path:
    """Refuses what is no file with something in it.

    Args:
        path: The file; ``~`` is the user's home.
        named: How a message begins, such as "`data.path`: ".

    Returns:
        The file.

    Raises:
        EditError: If it is not there, cannot be read, is empty, or is a folder, a pipe or the like.
    """
    file = Path(path).expanduser()
    try:
        status = file.stat()
        for is_kind, what in KINDS_OF_FILE:
            if is_kind(status.st_mode):
                raise EditError(f"{named}{path} is {what}; a file is needed.")
        with file.open("rb") as stream:
            if not stream.read(1):
                raise EditError(f"{named}{path} is empty.")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise EditError(f"{named}there is no file {path}.") from error
    except EditError:
        raise
    except (OSError, ValueError) as error:
        # A ValueError is a name that no file can have.
        why = getattr(error, "strerror", None) or error
        raise EditError(f"{named}{quoted(str(path))} cannot be read: {why}.") from error
    return file


def check_text(path: str, setting: str) -> None:
    """Refuses what is no file of ordinary text.

    Args:
        path: What was given.
        setting: The option that it was given for.

    Raises:
        EditError: See `check_file`.
    """
    try:
        check_file(path, f"`{setting}`: ")
    except EditError as error:
        raise EditError(f"{error} Give a file of ordinary text.") from error


def path_of(given: object, name: str, example: str) -> Path:
    """The path that an argument names.

    Args:
        given: What was given; ``~`` is the user's home.
        name: The argument.
        example: What it could be.

    Raises:
        EditError: If it is no path, or an empty one.
    """
    if not isinstance(given, str | PathLike) or not str(given).strip():
        raise EditError(f"`{name}` must be a path such as {example}, got {quoted(given)}.")
    return Path(given).expanduser()


def is_there(path: str | Path) -> bool:
    """Whether there is something of this name, which may be any text.

    Args:
        path: The name.
    """
    try:
        return Path(path).expanduser().exists()
    except (OSError, ValueError):
        return False


def check_model_name(name: str) -> None:
    """Refuses the name of a model that can only be a folder or a GGUF file, where there is none.

    Args:
        name: A folder, a GGUF file or a hub name.

    Raises:
        EditError: If there is no such folder or file.
    """
    if name.lower().endswith(".gguf") and not is_there(name):
        raise EditError(f"`model`: there is no file {name}. Give a GGUF file on this machine, a folder, or a hub name.")
    looks_like_path = name.startswith((".", "/", "~")) or name.count("/") > 1
    if looks_like_path and not is_there(name):
        raise EditError(f"`model`: there is no folder {name}. Give the folder of a transformers model, or a hub name.")


@contextmanager
def open_text(path: str | Path, named: str = "", newline: str | None = None) -> Iterator[TextIO]:
    """A text file opened to be read, in UTF-8 with or without a byte order mark.

    Args:
        path: The file.
        named: See `check_file`.
        newline: See `open`.

    Raises:
        EditError: See `check_file`; and if it is no text, or what is read in the context is not UTF-8.
    """
    file = check_file(path, named)
    with file.open("rb") as binary:
        beginning = binary.read(16)
    for sign, what in BEGINNINGS.items():
        if beginning.startswith(sign):
            raise EditError(f"{named}{path} is {what}.")
    try:
        with file.open(encoding="utf-8-sig", newline=newline) as stream:
            yield stream
    except UnicodeDecodeError as error:
        raise EditError(f"{named}{path} is not UTF-8 text ({error}); save it as UTF-8.") from error


def read_text(path: str | Path, named: str = "", largest: int = LARGEST) -> str:
    """The whole text of a file.

    Args:
        path: The file.
        named: See `check_file`.
        largest: The most bytes that make sense.

    Raises:
        EditError: See `open_text`; and if it is too large, or holds nothing but spaces.
    """
    size = check_file(path, named).stat().st_size
    if size > largest:
        raise EditError(f"{named}{path} has {size:,} bytes, more than the {largest:,} that are read at once.")
    with open_text(path, named) as stream:
        text = stream.read()
    if not text.strip():
        raise EditError(f"{named}{path} is empty: it holds nothing but spaces.")
    return text


def lines_of(path: str | Path, named: str = "", newline: str | None = None) -> Iterator[tuple[str, str]]:
    """The lines of a text file that are not empty, each with its place.

    Args:
        path: The file.
        named: See `check_file`.
        newline: What ends a line; None: whatever does on any system.

    Raises:
        EditError: See `open_text`; and for a line that is too long to be one.
    """
    with open_text(path, named, newline) as stream:
        number = 0
        while line := stream.readline(LONGEST_LINE + 1):
            number += 1
            where = f"{path}, line {number}"
            if len(line) > LONGEST_LINE:
                raise EditError(f"{where}: the line has more than {LONGEST_LINE:,} characters.")
            if line.strip():
                yield line, where


class CsvRow(dict[str, str]):
    """A row of a table, under the names of its header: whatever a cell holds, it is text."""


def csv_rows(
    path: str | Path, named: str = "", wanted: Container[int] | None = None
) -> Iterator[tuple[dict[str, str], str]]:
    """The rows of a CSV file under the names of its header; empty cells are left out.

    Cells are separated by commas; where the header has none, by the semicolons, tabs or bars that it has. In a ``.tsv``
    file tabs come before commas. Rows without a text, also those before the header, do not count. Where the
    header has spaces behind its separators, such spaces are no part of a cell, but where it is in quotes.

    Args:
        path: The file.
        named: See `check_file`.
        wanted: The positions of the rows that are looked at, counted from 0; an empty one stands for each other one.
            Without it all are.

    Raises:
        EditError: See `open_text`; and if the header or a row is not as it should be.
    """
    with open_text(path, named, newline="") as stream:
        signs = "\t,;|" if Path(path).suffix.lower() == ".tsv" else ",;\t|"
        beginning = [stream.readline(LONGEST_LINE)]
        while beginning[-1] and not beginning[-1].strip(SPACES + signs):
            beginning.append(stream.readline(LONGEST_LINE))
        delimiter = next((sign for sign in signs if sign in beginning[-1]), signs[0])
        # The limit is one for the whole process, and is only ever raised: a cell may be as long as a line.
        csv.field_size_limit(max(csv.field_size_limit(), LONGEST_LINE))
        # A file whose header has spaces behind its separators has them in all rows; elsewhere a space may be meant.
        spaced = f"{delimiter} " in beginning[-1]
        rows = csv.reader(chain(beginning, stream), delimiter=delimiter, skipinitialspace=spaced, strict=True)
        end, position, header = 0, 0, None
        try:
            for cells in rows:
                # A cell in quotes may hold line breaks: a row is where it starts.
                where, end = f"{path}, line {end + 1}", rows.line_num
                if not any(cell.strip() for cell in cells):
                    continue
                if header is None:
                    header = _header(cells, where)
                else:
                    skipped = wanted is not None and position not in wanted
                    yield {} if skipped else _row(header, cells, where, delimiter), where
                    position += 1
        except csv.Error as error:
            raise EditError(
                f"{path}, line {rows.line_num}: not CSV ({error}). See whether a quote is not closed."
            ) from error


def _header(cells: list[str], where: str) -> list[str]:
    names = [cell.strip() for cell in cells]
    if len(set(names)) < len(names) or not all(names):
        raise EditError(f"{where}: the header must give every column a name of its own, got {quoted(names)}.")
    return names


def _row(header: list[str], cells: list[str], where: str, delimiter: str) -> dict[str, str]:
    if len(cells) > len(header):
        sign = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}[delimiter]
        raise EditError(
            f"{where}: {len(cells)} cells where the header has {len(header)}. Put a text that holds a {sign} in quotes."
        )
    return CsvRow({name: cell for name, cell in zip(header, cells, strict=False) if cell.strip()})
