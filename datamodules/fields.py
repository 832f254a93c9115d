"""Values of flat records, which are written in more than one way."""

import ast
import re
from collections.abc import Mapping
from typing import Any

from lightning_edit.errors import EditError
from lightning_edit.messages import quoted
from lightning_edit.storage.user.files import CsvRow
from lightning_edit.storage.user.json import parse_json

# The bars of chat markup such as <|im_start|> separate nothing.
JSON_LIST = re.compile(r'\s*\[\s*(?:"|\[\s*")')
EMPTY_LIST = re.compile(r"\s*\[\s*\]\s*")
PYTHON_LIST = re.compile(r"\s*\[[\s\[(]*'")
AS_JSON = " Write a list as JSON, with double quotes, as `json.dumps` does."
SEPARATOR = re.compile(r"(?<!<)\|(?!>)")


def with_escapes(separator: str) -> str:
    r"""A separator as it is meant: a file, and a shell, spells a line break as ``\n`` and a tab as ``\t``.

    Args:
        separator: As it was given.
    """
    return separator.replace("\\n", "\n").replace("\\t", "\t")


def required_text(record: Mapping[str, Any], name: str) -> str:
    """A field that must hold a text.

    Args:
        record: A record that has the field.
        name: The field.

    Raises:
        EditError: If it holds something else or nothing.
    """
    value = record[name]
    if not isinstance(value, str) or not value.strip():
        raise EditError(f"`{name}` must be a text that is not empty, got {quoted(value)}.")
    return value


def case_id(record: Mapping[str, Any], default: int | str = "") -> str:
    """The name of a record.

    Args:
        record: A record.
        default: What it is called where it has none.

    Raises:
        EditError: If it is neither a text nor a number.
    """
    value = record.get("case_id")
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise EditError(f"`case_id` must be a text or a number, got {quoted(value)}.")
    # Columns of numbers in which some are missing hold 1 as 1.0.
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def entries(record: Mapping[str, Any], name: str) -> tuple[Any, ...]:
    """A field that may hold several things: nothing, one text, or a list, in a cell as JSON.

    Args:
        record: A record.
        name: The field, which may be absent.

    Returns:
        What the list holds, unchecked.

    Raises:
        EditError: If the field holds something else, or a text that looks like a list and is not JSON.
    """
    value = _value(record, name)
    if value is None:
        return ()
    if isinstance(value, str):
        return (value.strip(),) if value.strip() else ()
    if not isinstance(value, list | tuple):
        raise EditError(f"`{name}` must be a text or a list of texts, got {quoted(value)}.")
    return tuple(value)


def texts(record: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """A field that may hold texts: nothing, one, or a list.

    Args:
        record: A record.
        name: The field, which may be absent.

    Raises:
        EditError: If the field holds something else, or a text of the list is empty.
    """
    listed = entries(record, name)
    for entry in listed:
        if not isinstance(entry, str) or not entry.strip():
            raise EditError(
                f"`{name}` must be a text or a list of texts that are not empty, got {quoted(entry)} in it."
            )
    return listed


def split_texts(record: Mapping[str, Any], name: str) -> tuple[Any, ...]:
    """A field that may hold texts, also several in one text: as a JSON list, or with ``|`` between them.

    Args:
        record: A record.
        name: The field, which may be absent.

    Raises:
        EditError: See `entries`.
    """
    value = _listed(record.get(name), name)
    if not isinstance(value, str):
        return entries({name: value}, name)
    return tuple(part.strip() for part in SEPARATOR.split(value) if part.strip())


def first_text(record: Mapping[str, Any], name: str) -> str | None:
    """One text of those that say the same.

    Args:
        record: A record.
        name: The field: a text, or a list of texts or of such lists, in a cell as JSON, of which the first counts. It
            may be absent.

    Returns:
        The text; None where there is none, or an empty one.

    Raises:
        EditError: If the field holds something else, or a text that looks like a list and is not JSON.
    """
    value = _value(record, name)
    while isinstance(value, list | tuple):
        value = value[0] if value else None
    if value is not None and not isinstance(value, str):
        raise EditError(f"`{name}` must be a text or a list of texts, got {quoted(record[name])}.")
    return value if value and value.strip() else None


def required_first_text(record: Mapping[str, Any], name: str) -> str:
    """One text of those that say the same, where one is needed.

    Args:
        record: A record.
        name: The field.

    Raises:
        EditError: If it holds none.
    """
    value = first_text(record, name)
    if value is None:
        raise EditError(f"`{name}` must hold a text that is not empty, got {quoted(record.get(name))}.")
    return value


def _value(record: Mapping[str, Any], name: str) -> Any:
    """A field's value; the cell of a table may hold a list, where other files hold lists as such."""
    value = record.get(name)
    return _listed(value, name) if isinstance(record, CsvRow) else value


def _listed(value: Any, name: str) -> Any:
    """A field's value, or the list that its text holds as JSON, not as Python and pandas write it."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    if EMPTY_LIST.fullmatch(value):
        return []
    if JSON_LIST.match(value):
        return parse_json(value, f"`{name}`", AS_JSON)
    if PYTHON_LIST.match(value) or _is_python_list(value.strip()):
        raise EditError(f"`{name}` holds a list as Python writes it, {quoted(value)}.{AS_JSON}")
    return value


def _is_python_list(text: str) -> bool:
    try:
        return text.endswith("]") and isinstance(ast.literal_eval(text), list)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return False
