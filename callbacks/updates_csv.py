"""``updates.csv``: a table that grows by a row for each update, and goes on where a checkpoint left it."""

import csv
import io
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning_edit.storage.atomic import atomic_path
from lightning_edit.storage.user.files import csv_rows

logger = logging.getLogger(__name__)

Value = float | int | None


class UpdatesCSV:
    """A CSV file whose rows are appended in order; the first row decides the columns.

    A later row may have figures that none before it had: the file is then written anew with the longer header, and
    earlier rows are empty there. Numbers have six significant digits; what is not known or not finite is empty, and
    null in the run's other files.

    Args:
        path: The file.
        write: Whether this process writes; the others only count.
    """

    def __init__(self, path: Path, write: bool) -> None:
        self.path, self.write = path, write
        self.columns: list[str] = []
        self.rows = 0

    def begin(self, columns: Sequence[str] = (), rows: int = 0) -> None:
        """Takes the file up where a checkpoint left it: rows and columns that came later are dropped.

        Args:
            columns: The columns at that time.
            rows: The rows at that time; without any the file begins anew.
        """
        self.columns, self.rows = list(columns), rows
        if not self.write:
            return
        if not rows:
            self.path.unlink(missing_ok=True)
            return
        if not self.path.is_file():  # the run goes on in another folder
            self.columns, self.rows = [], 0
            return
        kept = self._read()[:rows]
        if len(kept) < rows:
            logger.warning("%s has %d of the %d updates in the checkpoint.", self.path, len(kept), rows)
        self.rows = len(kept)
        self._rewrite(kept)

    def append(self, row: Mapping[str, Value]) -> None:
        """Adds a row, complete on the disk before this returns.

        Args:
            row: Its figures by name; the order of those that are new is that of their columns.
        """
        new = [name for name in row if name not in self.columns]
        self.columns += new
        self.rows += 1
        if not self.write:
            return
        shown = {name: _shown(value) for name, value in row.items()}
        if new:
            self._rewrite([*(self._read() if self.path.is_file() else []), shown])
            return
        with self.path.open("a", encoding="utf-8", newline="") as file:
            file.write(self._lines([shown]))

    def _read(self) -> list[dict[str, str]]:
        """All rows that end with a newline; another one was being written when the run was killed."""
        content = self.path.read_bytes()
        if not content:
            return []
        rows = [row for row, _ in csv_rows(self.path)]
        return rows if content.endswith(b"\n") else rows[:-1]

    def _rewrite(self, rows: Sequence[Mapping[str, str]]) -> None:
        header = dict(zip(self.columns, self.columns, strict=True))
        content = self._lines([header, *rows])
        if self.path.is_file() and self.path.read_bytes() == content.encode():
            return
        with atomic_path(self.path) as scratch:
            scratch.write_text(content, encoding="utf-8", newline="")

    def _lines(self, rows: Sequence[Mapping[str, str]]) -> str:
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, restval="", extrasaction="ignore", lineterminator="\n")
        writer.writerows(rows)
        return text.getvalue()


def _shown(value: Value) -> str:
    if value is None or not math.isfinite(value):
        return ""
    return str(value) if isinstance(value, int) else f"{value:.6g}"
