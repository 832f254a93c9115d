"""The entries of a long JSON list, read one after the other: the list as a whole may be larger than memory."""

import json
from collections import Counter
from collections.abc import Iterator
from json import JSONDecodeError
from pathlib import Path
from typing import Any, TextIO

from lightning_edit.errors import EditError
from lightning_edit.messages import quoted
from lightning_edit.storage.user.files import LONGEST_LINE, open_text

# Characters that are read at once.
CHUNK = 2**24
SPACES = " \t\n\r"
# Where a text is cut, what is wrong is said of a place so near to its end, or of the beginning of a text value.
NEAR_END, CUT = 16, "Unterminated string"


class RepeatedName(ValueError):
    """An object has a name twice; its text is the name."""


def named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of names and values; the json library's own takes the last value of a name without a word.

    Args:
        pairs: The names and values.

    Raises:
        RepeatedName: If a name is there twice.
    """
    value = dict(pairs)
    if len(value) < len(pairs):
        raise RepeatedName(Counter(name for name, _ in pairs).most_common(1)[0][0])
    return value


def what_is_wrong(error: ValueError) -> str:
    """What is said of JSON in which the syntax is right.

    Args:
        error: From the json library, or from `named_once`.
    """
    if isinstance(error, RepeatedName):
        return f"{quoted(str(error))} is given twice. Keep one of them"
    # The only other one: a number with so many digits that reading it would take long.
    return f"a number has too many digits ({error})"


def list_entries(path: str | Path, named: str = "", hint: str = "") -> Iterator[tuple[Any, str]]:
    """The entries of a JSON list, each with the text that it was written as.

    Args:
        path: The file.
        named: See `check_file`.
        hint: What to say after that the file is no JSON.

    Raises:
        EditError: See `open_text`; and if what was read so far is no JSON, or no list.
    """
    with open_text(path, named) as stream:
        reader = _Reader(stream)
        first = reader.character()
        if not first:
            raise EditError(f"{named}{path} is empty: it holds nothing but spaces.")
        if first != "[":
            kind = "one object" if first == "{" else "something else"
            raise EditError(f"{named}{path}: expected a list of records, got {kind}.{hint}")
        try:
            yield from reader.entries()
        except JSONDecodeError as error:
            line, column = reader.place_of(error.pos)
            raise EditError(f"{path}, line {line}, column {column}: not JSON ({error.msg}).{hint}") from error
        except (RecursionError, ValueError) as error:
            what = "nested too deep" if isinstance(error, RecursionError) else what_is_wrong(error)
            line, _ = reader.place_of(reader.at)
            raise EditError(f"{path}, the entry that begins on line {line}: {what}.") from error


class _Reader:
    """A window on the file, which moves on with the entries.

    Args:
        stream: The file.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._scan = stream, json.JSONDecoder(object_pairs_hook=named_once).raw_decode
        self._text, self.at = "", 0
        self._lines, self._column = 0, 0

    def entries(self) -> Iterator[tuple[Any, str]]:
        """The entries, from the bracket on."""
        self.at += 1
        sign = self.character()
        if sign == "]":
            self.at += 1
        while sign != "]":
            value, begin = self._value(), self.at
            self.at = self._end
            yield value, self._text[begin : self._end]
            sign = self.character()
            if sign not in (",", "]") or not sign:
                raise JSONDecodeError("Expecting ',' delimiter", self._text, self.at)
            self.at += 1
            if sign == ",":
                self.character()
        if self.character():
            raise JSONDecodeError("Extra data", self._text, self.at)

    def character(self) -> str:
        """The next character that is no space; none at the end of the file."""
        while True:
            while self.at < len(self._text) and self._text[self.at] in SPACES:
                self.at += 1
            if self.at < len(self._text) or not self._more():
                return self._text[self.at : self.at + 1]

    def _value(self) -> Any:
        while True:
            try:
                value, self._end = self._scan(self._text, self.at)
            except JSONDecodeError as error:
                cut = error.msg.startswith(CUT) or error.pos > len(self._text) - NEAR_END
                if cut and len(self._text) - self.at <= LONGEST_LINE and self._more():
                    continue
                raise
            # Of a number at the end there may be more: digits, or an exponent.
            if self._end <= len(self._text) - NEAR_END or not self._more():
                return value

    def _more(self) -> bool:
        """Lets the window go on to where the next entry begins, with more text after it."""
        more = self._stream.read(CHUNK)
        if not more:
            return False
        done, self._text, self.at = self._text[: self.at], self._text[self.at :] + more, 0
        self._lines += done.count("\n")
        self._column = len(done) - done.rfind("\n") - 1 if "\n" in done else self._column + len(done)
        return True

    def place_of(self, at: int) -> tuple[int, int]:
        """Line and column of a place in the window, counted from 1.

        Args:
            at: The place.
        """
        before = self._text[:at]
        column = len(before) - before.rfind("\n") if "\n" in before else self._column + len(before) + 1
        return self._lines + before.count("\n") + 1, column
