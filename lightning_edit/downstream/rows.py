"""The rows of a task, from a JSONL file or the hub, each of which can say where it stands."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from lightning_edit.errors import EditError
from lightning_edit.messages import listed, one_line, quoted
from lightning_edit.storage.user.files import is_there
from lightning_edit.storage.user.json import json_lines


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Args:
        fields: Its columns.
        where: File and line, for messages.
    """

    fields: Mapping[str, Any]
    where: str

    def __getitem__(self, column: str) -> Any:
        """The value of a column.

        Raises:
            EditError: If there is none.
        """
        if self.fields.get(column) is None:
            state = "is empty" if column in self.fields else "is missing"
            raise EditError(f"{self.where}: the column `{column}` {state}. Columns: {listed(self.fields)}.")
        return self.fields[column]


@dataclass(frozen=True)
class Table:
    """Rows in a fixed order.

    Args:
        name: The file or data set.
        records: The columns of each row.
        places: File and line of each row; None counts the rows.
    """

    name: str
    records: Sequence[Mapping[str, Any]]
    places: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Row:
        place = f"{self.name}, row {index + 1}" if self.places is None else self.places[index]
        return Row(self.records[index], place)


def read_jsonl(file: Path) -> Table:
    """The rows of a file with one JSON object a line; empty lines do not count.

    Args:
        file: The file, in UTF-8.

    Raises:
        EditError: If it is not there, not UTF-8, or a line is no JSON object.
    """
    placed = list(json_lines(file))
    for record, where in placed:
        if not isinstance(record, dict):
            raise EditError(f"{where}: expected a JSON object with the columns of a row, got {quoted(record)}.")
    return Table(str(file), [record for record, _ in placed], [where for _, where in placed])


def read_hub(dataset: str, subset: str | None, split: str, shuffle: int | None) -> Table:
    """The rows of a data set on the hub.

    Args:
        dataset: Its name.
        subset: Its configuration, where it has several.
        split: Its split.
        shuffle: Seed of the order; None keeps the order of the data set.

    Raises:
        EditError: If it cannot be loaded.
    """
    try:
        rows = datasets.load_dataset(dataset, subset, split=split)
    except Exception as error:
        # It stands for many readers and for the hub, each with errors of its own.
        raise EditError(
            f"The data set {dataset} ({subset or 'default'}, {split}) could not be loaded: {one_line(error)}. "
            "Give a folder of JSONL files with `data_dir`."
        ) from error
    return Table(f"{dataset} ({split})", rows if shuffle is None else rows.shuffle(seed=shuffle))


def read_folder(folder: Path, task: str) -> Table:
    """The rows of a task from a user's folder, which holds ``NAME.jsonl`` for each task.

    Args:
        folder: The folder.
        task: Name of the task.

    Raises:
        EditError: If the folder has no such file.
    """
    file = folder / f"{task}.jsonl"
    if not is_there(folder) or not folder.is_dir():
        raise EditError(f"`data_dir`: there is no folder {folder}.")
    if not is_there(file):
        there = listed(sorted(path.name for path in folder.glob("*.jsonl"))) or "none"
        raise EditError(f"`data_dir`: the task {task} needs {file}, which is not there. JSONL files there: {there}.")
    return read_jsonl(file)
