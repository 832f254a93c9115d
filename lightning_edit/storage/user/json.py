"""JSON of a user's: no value that is nested too deep, or holds what is no character."""

import json
from collections.abc import Callable, Container, Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from lightning_edit.characters import fault_of
from lightning_edit.errors import EditError
from lightning_edit.messages import quoted
from lightning_edit.storage.json_list import CHUNK, list_entries, named_once, what_is_wrong
from lightning_edit.storage.user.files import check_file, lines_of, open_text, read_text

Placed = tuple[Any, str]
"""A value and its place as messages call it, such as "edits.jsonl, line 3"."""

DEPTH = 100
ONE_EACH = " Each line must be one JSON value."
# Old Macs ended lines like that; within a value such a sign is as good as a space.
MAC = " Its lines end in CR alone, which ends none here: save the file with line ends of LF."


def parse_json(text: str, where: str, hint: str = "") -> Any:
    """A JSON value, checked by `check_value`.

    Args:
        text: The JSON.
        where: The file, or the file and line where there is one value a line.
        hint: What to say after that a text is no JSON.

    Raises:
        EditError: If it is no JSON, or not a value that `check_value` accepts.
    """
    value = _loads(text, where, hint)
    if not _is_harmless(text):
        check_value(value, where)
    return value


def _is_harmless(text: str) -> bool:
    """Whether a text of JSON, which was UTF-8, can hold nothing that `check_value` refuses: few are worth its time."""
    return "\\ud" not in text and "\\uD" not in text and text.count("[") + text.count("{") <= DEPTH


def _loads(text: str, where: str, hint: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=named_once)
    except json.JSONDecodeError as error:
        line = "" if ", line " in where else f", line {error.lineno}"
        raise EditError(f"{where}{line}, column {error.colno}: not JSON ({error.msg}).{hint}") from error
    except RecursionError as error:
        raise EditError(f"{where}: nested more than {DEPTH} levels deep.") from error
    except ValueError as error:
        raise EditError(f"{where}: {what_is_wrong(error)}.") from error


def check_value(value: Any, where: str) -> None:
    """Refuses values that other code could not go through or write down again.

    Args:
        value: Of dictionaries, lists, texts and numbers.
        where: Its place.

    Raises:
        EditError: If it is nested too deep, or a text holds half of a surrogate pair, which is no character.
    """
    wrong = _fault(value, DEPTH)
    if wrong is not None:
        field, fault = wrong
        raise EditError(f"{where}{f', field {quoted(field)}' if field else ''}: {fault}.")


def _fault(value: Any, depth: int) -> tuple[str, str] | None:
    """The field, with dots, and what is wrong there."""
    if isinstance(value, str):
        fault = fault_of(value)
        return None if fault is None else ("", f"the text {fault}")
    if not isinstance(value, dict | list | tuple):
        return None
    if not depth:
        return "", f"nested more than {DEPTH} levels deep"
    entries: Iterable[tuple[Any, Any]] = value.items() if isinstance(value, dict) else enumerate(value)
    for name, entry in entries:
        wrong = _fault(entry, depth - 1) or (_fault(name, depth - 1) if isinstance(name, str) else None)
        if wrong is not None:
            # All levels of what is too deep would be a long name.
            inner = wrong[0] if wrong[0].count(".") < 3 else ""
            return f"{name}.{inner}".rstrip("."), wrong[1]
    return None


def read_json(path: str | Path, named: str = "", hint: str = "") -> Any:
    """The value of a JSON file.

    Args:
        path: The file.
        named: See `check_file`.
        hint: What to say after that the file is no JSON.

    Raises:
        EditError: See `read_text` and `parse_json`.
    """
    return parse_json(read_text(path, named), str(path), hint)


def json_lines(
    path: str | Path,
    named: str = "",
    on_unfinished: Callable[[str], None] | None = None,
    wanted: Container[int] | None = None,
) -> Iterator[Placed]:
    """The values of a file with one JSON value a line; empty lines do not count.

    Args:
        path: The file.
        named: See `check_file`.
        on_unfinished: Is given the place of a last line that is no JSON and has no end, as where a file is still being
            written; None refuses it.
        wanted: The positions of the values that are looked at, counted from 0; None stands for each other one. Without
            it all are.

    Raises:
        EditError: See `lines_of` and `parse_json`.
    """
    # Only a newline ends a line; other separators may stand inside the texts.
    for position, (line, where) in enumerate(lines_of(path, named, "\n")):
        if wanted is not None and position not in wanted:
            yield None, where
            continue
        try:
            value = parse_json(text := line.rstrip("\r\n"), where, MAC if "\r" in text else ONE_EACH)
        except EditError:
            if on_unfinished is None or line.endswith("\n"):
                raise
            on_unfinished(where)
            return
        yield value, where


def json_records(
    path: str | Path, named: str = "", hint: str = "", wanted: Container[int] | None = None
) -> Iterator[Placed]:
    """The entries of a JSON list; those of a long one are read one by one.

    Args:
        path: The file.
        named: See `check_file`.
        hint: What to say after that the file is no JSON.
        wanted: See `json_lines`.

    Raises:
        EditError: See `read_text` and `parse_json`; and if it is no list. In a long list what is wrong is found when it
            is reached.
    """
    file = check_file(path, named)
    with open_text(path, named) as stream:
        lines = " If it holds one record a line, name it .jsonl." if _begins_with_object(stream) else ""
    long = file.stat().st_size > CHUNK
    entries = list_entries(path, named, lines or hint) if long else _whole_list(path, named, hint, lines)
    for position, (record, text) in enumerate(entries):
        where = f"{path}, record {position + 1}"
        if wanted is not None and position not in wanted:
            yield None, where
            continue
        if text is None or not _is_harmless(text):
            check_value(record, where)
        yield record, where


def _begins_with_object(stream: TextIO) -> bool:
    while part := stream.read(2**10):
        if part.strip():
            return part.lstrip().startswith("{")
    return False


def _inner_list(value: Any) -> str:
    """Where the list is that an object holds in place of being one."""
    found = [name for name, entry in value.items() if isinstance(entry, list)] if isinstance(value, dict) else []
    objects = [name for name in found if value[name] and all(isinstance(entry, dict) for entry in value[name])]
    return f" There is a list under {quoted(objects[0])}: save that list alone." if len(objects) == 1 else ""


def _whole_list(path: str | Path, named: str, hint: str, lines: str) -> Iterator[tuple[Any, None]]:
    records = _loads(read_text(path, named), str(path), lines or hint)
    if not isinstance(records, list):
        kind = "one object" if isinstance(records, dict) else quoted(records)
        raise EditError(f"{named}{path}: expected a list of records, got {kind}.{_inner_list(records) or lines}")
    for record in records:
        yield record, None
