"""Records of a data set, from a JSON, JSON lines, CSV or Parquet file, a folder, or the hub, each with its place."""

import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from lightning_edit.errors import EditError
from lightning_edit.messages import one_line
from lightning_edit.storage.user.files import check_file, csv_rows, is_there, lines_of, read_text
from lightning_edit.storage.user.json import check_value, json_lines, json_records

NAMED = "`data.path`: "
UNNAMED = " A file that is not named .jsonl, .csv, .tsv or .parquet is read as JSON."
DATA = (".json", ".jsonl", ".csv", ".tsv", ".parquet")
# Names by which `datasets` finds the splits of a folder.
SPLITS = {
    "train": re.compile(r"(^|[^a-z])(train|training)([^a-z]|$)"),
    "test": re.compile(r"(^|[^a-z])(test|testing|eval|evaluation)([^a-z]|$)"),
    "validation": re.compile(r"(^|[^a-z])(validation|valid|val|dev)([^a-z]|$)"),
}
SUFFIXES = (*DATA, ".txt")


def read_records(
    path: str, subset: str | None = None, split: str = "train", wanted: Container[int] | None = None
) -> Iterator[tuple[Any, str]]:
    """The records of a data set in its order, with what a message calls them.

    Args:
        path: A local file (``.jsonl``: one JSON object a line, ``.csv`` or ``.tsv``: a header and rows, ``.parquet``,
            and anything else a JSON list), a local folder of data files, or the name of a hub data set.
        subset: The configuration of a hub data set that has several.
        split: Which split of a folder or hub data set.
        wanted: The positions of the records that are looked at, counted from 0; something empty stands for each other
            one, which takes little time. Without it all are.

    Yields:
        A record and its place, such as "edits.csv, line 3". Empty cells are left out of a row of CSV, missing
        values out of a row of Parquet and of the hub. The data files of a folder are read one after the
        other, in the order of their names; where these hold splits, those of the split.

    Raises:
        EditError: If the source is not there or cannot be read; the message names file and line.
    """
    file = Path(path).expanduser()
    if is_there(file) and file.is_dir():
        if subset is None and (files := _plain_files(file, split)):
            yield from _of_files(files, wanted)
        else:
            yield from _rows(str(file), wanted=wanted, name=subset, split=split)
    elif is_there(file) or file.suffix.lower() in SUFFIXES or path.startswith((".", "/", "~")):
        readers: dict[str, Callable[..., Iterator[tuple[Any, str]]]] = {
            ".jsonl": json_lines,
            ".csv": csv_rows,
            ".tsv": csv_rows,
            ".parquet": _parquet_rows,
        }
        if (read := readers.get(suffix := file.suffix.lower())) is not None:
            yield from read(path, NAMED, wanted=wanted)
        else:
            yield from json_records(path, NAMED, "" if suffix == ".json" else UNNAMED, wanted)
    else:
        yield from _rows(path, wanted=wanted, name=subset, split=split)


def _plain_files(folder: Path, split: str) -> list[Path]:
    """The files of a split by their names, where a folder holds data files alone; else none.

    Where no name holds that of a split, all are of ``train``.
    """
    # What begins with a dot or an underscore is no data for `datasets` either.
    inside = [one for one in folder.iterdir() if not one.name.startswith((".", "_")) and not _is_plain_text(one)]
    if not all(one.is_file() and one.suffix.lower() in DATA for one in inside):
        return []
    splits = {file: _split_of(file) for file in inside}
    usual = None if any(splits.values()) else "train"
    return sorted(file for file, named in splits.items() if (named or usual) == split)


def _split_of(file: Path) -> str | None:
    """The split that the name of a file holds, None for none."""
    return next((name for name, words in SPLITS.items() if words.search(file.stem.lower())), None)


def _is_plain_text(file: Path) -> bool:
    """Whether a file is a README; one that begins with settings may tell `datasets` which files there are."""
    if file.suffix.lower() != ".md" or not file.is_file():
        return False
    with file.open("rb") as content:
        return content.read(3) != b"---"


def _of_files(files: Sequence[Path], wanted: Container[int] | None) -> Iterator[tuple[Any, str]]:
    """The records of several files, one after the other: read as each is where it is given alone."""
    before = 0
    for file in files:
        for found in read_records(str(file), wanted=None if wanted is None else _Behind(wanted, before)):
            before += 1
            yield found


@dataclass(frozen=True)
class _Behind:
    """Positions in what follows some records."""

    wanted: Container[int]
    before: int

    def __contains__(self, position: Any) -> bool:
        return position + self.before in self.wanted


def read_list(path: str, setting: str) -> list[tuple[Any, str]]:
    """A list of ids or positions from a file: a JSON list, or one entry a line.

    Args:
        path: The file.
        setting: The setting that named it, for messages.

    Returns:
        The entries with their places.

    Raises:
        EditError: If there is no such file, or it is neither.
    """
    file, named = Path(path).expanduser(), f"`{setting}`: "
    if not is_there(file):
        raise EditError(f"{named}there is no file {path}. Give a list such as [0, 5], or a file that holds one.")
    if file.suffix.lower() == ".json" or read_text(file, named).lstrip().startswith("["):
        return list(json_records(file, named))
    return [(line.strip(), where) for line, where in lines_of(file, named)]


def _parquet_rows(path: str, named: str, wanted: Container[int] | None = None) -> Iterator[tuple[Any, str]]:
    return _rows(path, "parquet", wanted, data_files=str(check_file(path, named)), split="train")


def _rows(
    path: str, builder: str | None = None, wanted: Container[int] | None = None, **options: Any
) -> Iterator[tuple[Any, str]]:
    """Rows that `datasets` reads: a column has a value in every row there, so None stands for one that is missing."""
    try:
        rows = datasets.load_dataset(builder or path, **options)
        for position, row in enumerate(rows if wanted is None else _some(rows, wanted)):
            record, where = _without_missing(row), f"{path}, record {position + 1}"
            check_value(record, where)
            yield record, where
    except EditError:
        raise
    except Exception as error:
        # It stands for a dozen readers, each with errors of its own for files that are not as it expects.
        local = is_there(path)
        problem = "could not be read" if local else "is no file and could not be opened on the hub"
        holds = " A folder should hold data files alone, such as .jsonl, .csv or .parquet."
        hint = holds if local and Path(path).expanduser().is_dir() else ""
        raise EditError(f"{NAMED}{path} {problem}: {one_line(error.__cause__ or error)}.{hint}") from error


def _some(rows: Any, wanted: Container[int]) -> Iterator[Any]:
    return (rows[position] if position in wanted else {} for position in range(len(rows)))


def _without_missing(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {name: _without_missing(entry) for name, entry in value.items() if entry is not None}
