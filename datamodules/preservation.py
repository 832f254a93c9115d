"""Ordinary text, whose keys an edit must leave alone."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import datasets

from lightning_edit.datamodules.records import open_text
from lightning_edit.errors import EditError


class PreservationText(ABC):
    """A source of ordinary text for the second moments."""

    @abstractmethod
    def texts(self) -> Iterator[str]:
        """The texts, in an order that is always the same; only as many are read as are needed."""

    def __repr__(self) -> str:
        """How it was made, by which a run tells whether it is still the same text."""
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


class TextFile(PreservationText):
    """Local files: plain text, one a line, or JSON lines. Several files take turns, one text of each.

    Args:
        path: The file or files; ``.jsonl`` is read as JSON lines.
        field: The field of a JSON line that holds the text.

    Raises:
        EditError: If there is no such file.
    """

    def __init__(self, path: list[str] | str, field: str = "text") -> None:
        given = [path] if isinstance(path, str) else path
        self.paths, self.field = [Path(name).expanduser() for name in given], field
        if not given:
            raise EditError("`preservation.path` names no file.")
        for file in self.paths:
            if not file.is_file():
                raise EditError(f"`preservation`: there is no file {file}.")
            if not file.stat().st_size:
                raise EditError(f"`preservation`: the file {file} is empty.")

    def texts(self) -> Iterator[str]:
        """The texts that are not empty, one of each file in turn; a file that is at its end is passed over.

        Raises:
            EditError: For a line that is no JSON object with the field.
        """
        # Only the first so many tokens are read: one file after the other, they would all be of the first.
        sources = [self._texts_of(file) for file in self.paths]
        for turn in zip_longest(*sources):
            yield from (text for text in turn if text and text.strip())

    def _texts_of(self, file: Path) -> Iterator[str]:
        with open_text(file) as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield self._text(line, f"{file}, line {number}") if file.suffix == ".jsonl" else line.strip()

    def _text(self, line: str, where: str) -> str:
        try:
            text = json.loads(line)[self.field]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise EditError(
                f"{where}: expected a JSON object with a field {self.field!r}, got {line[:60]!r}."
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
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            raise EditError(f"`preservation`: {self.name} could not be opened: {error}") from error
        for row in rows:
            if self.field not in row:
                raise EditError(f"`preservation`: {self.name} has no column {self.field!r}, only {sorted(row)}.")
            text = row[self.field]
            if text is not None and not isinstance(text, str):
                raise EditError(f"`preservation`: the column {self.field!r} of {self.name} holds no text: {text!r}.")
            if text and text.strip():
                yield text
