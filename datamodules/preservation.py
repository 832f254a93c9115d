"""Ordinary text, whose keys an edit must leave alone."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import datasets

from lightning_edit.errors import EditError
from lightning_edit.messages import listed, one_line, quoted
from lightning_edit.settings import Checked
from lightning_edit.storage.user.files import check_file, lines_of
from lightning_edit.storage.user.json import json_lines

NAMED = "`preservation`: "
CHECKED = 1000


class PreservationText(Checked, ABC):
    """A source of ordinary text for the second moments."""

    @abstractmethod
    def texts(self) -> Iterator[str]:
        """The texts, in an order that is always the same; only as many are read as are needed."""

    def check(self) -> None:
        """Looks at the first texts, so that a file which is no such text is refused before a model is loaded."""

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
            check_file(file, NAMED)

    def check(self) -> None:
        """Reads the beginning of each file.

        Raises:
            EditError: See `texts`; and if there is nothing but spaces in a file.
        """
        for file in self.paths:
            beginning = list(islice(self._texts_of(file), CHECKED))
            if not any(text.strip() for text in beginning):
                raise EditError(f"{NAMED}{file} holds no text in its first {CHECKED:,} entries.")

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
        if file.suffix.lower() == ".jsonl":
            return (self._text(record, where) for record, where in json_lines(file, NAMED))
        return (line.strip() for line, _ in lines_of(file, NAMED))

    def _text(self, record: Any, where: str) -> str:
        if not isinstance(record, dict) or self.field not in record:
            raise EditError(f"{where}: expected a JSON object with a field {self.field!r}, got {quoted(record)}.")
        text = record[self.field]
        if text is not None and not isinstance(text, str):
            raise EditError(f"{where}: the field {self.field!r} must hold a text, got {quoted(text)}.")
        return text or ""


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
        except Exception as error:
            # It stands for many readers and for the hub, each with errors of its own.
            raise EditError(f"{NAMED}{self.name} could not be opened: {one_line(error)}") from error
        for row in self._read(rows):
            if self.field not in row:
                raise EditError(f"{NAMED}{self.name} has no column {self.field!r}, only {listed(sorted(row))}.")
            text = row[self.field]
            if text is not None and not isinstance(text, str):
                raise EditError(f"{NAMED}the column {self.field!r} of {self.name} holds no text: {quoted(text)}.")
            if text and text.strip():
                yield text

    def _read(self, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        try:
            yield from rows
        except Exception as error:
            # What is streamed may break off at any row, with as many kinds of errors.
            raise EditError(f"{NAMED}{self.name} could not be read to its end: {one_line(error)}") from error
