"""Ordinary text, whose keys an edit must leave alone."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import datasets

from lightning_edit.errors import EditError


class PreservationText(ABC):
    """A source of ordinary text for the second moments."""

    @abstractmethod
    def texts(self) -> Iterator[str]:
        """The texts, in an order that is always the same; only as many are read as are needed."""


class TextFile(PreservationText):
    """A local file: plain text, one a line, or JSON lines.

    Args:
        path: The file; ``.jsonl`` is read as JSON lines.
        field: The field of a JSON line that holds the text.

    Raises:
        EditError: If there is no such file.
    """

    def __init__(self, path: str, field: str = "text") -> None:
        self.path, self.field = Path(path).expanduser(), field
        if not self.path.is_file():
            raise EditError(f"`preservation`: there is no file {path}.")
        if not self.path.stat().st_size:
            raise EditError(f"`preservation`: the file {path} is empty.")

    def texts(self) -> Iterator[str]:
        """The lines that are not empty.

        Raises:
            EditError: For a line that is no JSON object with the field.
        """
        try:
            with self.path.open(encoding="utf-8") as file:
                for number, line in enumerate(file, start=1):
                    if line.strip():
                        yield self._text(line, number)
        except UnicodeDecodeError as error:
            raise EditError(f"{self.path} is not UTF-8 text ({error}); save it as UTF-8.") from error

    def _text(self, line: str, number: int) -> str:
        if self.path.suffix != ".jsonl":
            return line.strip()
        try:
            text = json.loads(line)[self.field]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise EditError(
                f"{self.path}, line {number}: expected a JSON object with a field {self.field!r}, got {line[:60]!r}."
            ) from error
        return str(text)


class HubText(PreservationText):
    """A text data set of the hub, streamed.

    Args:
        name: Its name, e.g. ``Salesforce/wikitext``.
        subset: Its configuration, e.g. ``wikitext-103-raw-v1``.
        split: Which split to read.
        field: The column that holds the text.
    """

    def __init__(self, name: str, subset: str | None = None, split: str = "train", field: str = "text") -> None:
        self.name, self.subset, self.split, self.field = name, subset, split, field

    def texts(self) -> Iterator[str]:
        """The rows that are not empty.

        Raises:
            EditError: If the data set cannot be opened or has no such column.
        """
        try:
            rows = datasets.load_dataset(self.name, self.subset, split=self.split, streaming=True)
        except (OSError, ValueError) as error:
            raise EditError(f"`preservation`: {self.name} could not be opened: {error}") from error
        for row in rows:
            if self.field not in row:
                raise EditError(f"`preservation`: {self.name} has no column {self.field!r}, only {sorted(row)}.")
            if row[self.field].strip():
                yield row[self.field]
