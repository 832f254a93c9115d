"""What is said to the user: bounded in length, without control characters, and never read as markup."""

import re
import reprlib
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
from rich.text import Text

LONGEST = 3000
QUOTED = 120
LISTED = 10
LARGEST = 1e9

# C0 and C1 but tab and newline, line separators, what turns the direction of writing, and halves of a character.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""A text that a terminal shows as it is: control characters are written as escapes such as ``\x1b``.

    Args:
        text: Any text; its tabs and newlines stay.
    """
    return _CONTROL.sub(lambda match: ascii(match.group())[1:-1], text)


def bounded(message: str, most: int = LONGEST) -> str:
    """A message that fits a screen: of a longer one the beginning and the end, which says what to change.

    Args:
        message: The message.
        most: Its largest length in characters.
    """
    if len(message) <= most:
        return message
    head, tail = 2 * most // 3, most // 3 - 60
    return f"{message[:head]} [... {len(message) - head - tail:,} characters are left out ...] {message[-tail:]}"


def quoted(value: Any, most: int = QUOTED) -> str:
    """A user's value as a message quotes it: its ``repr``, of a long one the beginning.

    Args:
        value: Any value, of any size and depth.
        most: About the largest length in characters.
    """
    if isinstance(value, str):
        if len(value) <= most:
            return repr(value)
        return f"{value[:most]!r}... ({len(value):,} characters)"
    short = reprlib.Repr()
    short.maxlevel, short.maxdict, short.maxstring, short.maxother, short.maxlong = 4, 8, most // 2, most, 40
    shown = short.repr(value)
    return shown if len(shown) <= most else f"{shown[:most]}..."


def listed(values: Iterable[Any], most: int = LISTED) -> str:
    """Values with commas between them, of many the first and how many more there are.

    Args:
        values: Numbers or names, unquoted.
        most: How many to show.
    """
    names = [str(value) for value in values]
    shown = [name if len(name) <= QUOTED else f"{name[:QUOTED]}..." for name in names[:most]]
    return ", ".join(shown) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number and its noun: "1 edit", "2 edits", "1,000 edits".

    Args:
        number: How many.
        noun: One of them.
        plural: More of them, if it is not the noun with an "s".
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def updates_were(numbers: Sequence[int]) -> str:
    """Updates and their verb: "update 2 was", "updates 1, 2 were".

    Args:
        numbers: Of the updates, one at least.
    """
    return f"update {numbers[0]} was" if len(numbers) == 1 else f"updates {listed(numbers)} were"


def readable(number: float, digits: int = 3) -> str:
    """A number as people write it: "0.123", "12.3", "1,235", and not "1.23e+03"; a power of ten beyond a billion.

    Args:
        number: Any number.
        digits: How many digits count; those before the point are all written.
    """
    short = f"{number:.{digits}g}"
    whole = "e+" in short or abs(number) >= 1000
    return f"{number:,.0f}" if whole and abs(number) < LARGEST else short


def one_line(error: BaseException, most: int = 600) -> str:
    """What another library says of an error, as part of a sentence.

    Args:
        error: The error; its lines are joined.
        most: The largest length in characters.
    """
    return bounded(" ".join(str(error).split()), most) or type(error).__name__


class _PlainConsole(Console):
    """A console on which texts are texts: neither markup nor emoji codes nor control characters do anything."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> RenderResult:  # type: ignore[override]
        for segment in super().render(renderable, options):
            if segment.control or not _CONTROL.search(segment.text):
                yield segment
            else:
                yield Segment(printable(segment.text), segment.style)


def terminal(stderr: bool = False, **options: Any) -> Console:
    """The console that all output goes through.

    Args:
        stderr: Whether it is standard error, for what is no result.
        **options: More of rich's own.
    """
    return _PlainConsole(stderr=stderr, markup=False, emoji=False, highlight=False, **options)


def cells(texts: Sequence[str]) -> list[str]:
    """Texts of a user or a model for a row of a table, each short enough for a cell.

    Args:
        texts: The texts.
    """
    return [bounded(text, 1000) for text in texts]
