"""Tables of a user's as text: a header, and rows whose cells are separated by commas, semicolons or tabs."""

import csv
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from lightning_edit.errors import EditError
from lightning_edit.messages import quoted
from lightning_edit.storage.user_files import LONGEST_LINE, open_text


def csv_rows(path: str | Path, named: str = "") -> Iterator[tuple[dict[str, str], str]]:
    """The rows of a CSV file under the names of its header; empty cells are left out.

    Cells are separated by commas; where the header has none, by the semicolons or tabs that it has.

    Args:
        path: The file.
        named: See `check_file`.

    Raises:
        EditError: See `open_text`; and if the header or a row is not as it should be.
    """
    with open_text(path, named, newline="") as stream:
        first = stream.readline(LONGEST_LINE)
        delimiter = next((sign for sign in ",;\t" if sign in first), ",")
        rows = csv.reader(chain([first], stream), delimiter=delimiter, strict=True)
        end, header = 0, None
        try:
            for cells in rows:
                # A cell in quotes may hold line breaks: a row is where it starts.
                where, end = f"{path}, line {end + 1}", rows.line_num
                if header is None:
                    header = _header(cells, where)
                elif any(cell.strip() for cell in cells):
                    yield _row(header, cells, where, delimiter), where
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
        sign = {",": "comma", ";": "semicolon", "\t": "tab"}[delimiter]
        raise EditError(
            f"{where}: {len(cells)} cells where the header has {len(header)}. Put a text that holds a {sign} in quotes."
        )
    return {name: cell for name, cell in zip(header, cells, strict=False) if cell.strip()}
