"""Prompt templates: texts with the columns of a row in braces, such as ``{sentence}`` or ``{choices[0]}``."""

import re
import string
from collections.abc import Iterator

from lightning_edit.downstream.rows import Row
from lightning_edit.errors import EditError
from lightning_edit.messages import counted, quoted

FIELD = re.compile(r"(\w+)(?:\[(\d+)\])?")


def _parts(template: str) -> Iterator[tuple[str, str | None]]:
    """Literal texts, each with the field that follows it."""
    try:
        for literal, name, spec, conversion in string.Formatter().parse(template):
            if name is not None and (spec or conversion or not FIELD.fullmatch(name)):
                raise EditError(f"the field {{{name}}} is neither {{column}} nor {{column[0]}}")
            yield literal, name
    except ValueError as error:
        raise (
            error if isinstance(error, EditError) else EditError(f"{error}; a brace itself is written twice")
        ) from error


def check_template(key: str, template: str) -> None:
    """Refuses a template that could not be filled.

    Args:
        key: What the setting is called.
        template: The template.

    Raises:
        EditError: If its braces do not match, or there is none.
    """
    try:
        fields = [name for _, name in _parts(template) if name is not None]
    except EditError as error:
        raise EditError(f"`{key}`: {error}.") from error
    if not fields:
        raise EditError(f"`{key}` must name a column in braces, such as {{sentence}}; got {template!r}.")


def fill(template: str, row: Row) -> str:
    """The template with the values of a row in place, which are never read as templates themselves.

    Args:
        template: As `check_template` accepts it.
        row: A row with the columns that it names.

    Raises:
        EditError: If a column is missing, or is not what the template takes it for.
    """
    return "".join(literal + ("" if name is None else _value(name, row)) for literal, name in _parts(template))


def _value(name: str, row: Row) -> str:
    match = FIELD.fullmatch(name)
    assert match is not None
    column, index = match.groups()
    value = row[column]
    if index is not None:
        if not isinstance(value, list) or len(value) <= int(index):
            raise EditError(
                f"{row.where}: `{name}` needs a list of at least {counted(int(index) + 1, 'entry', 'entries')}, "
                f"got {quoted(value)}."
            )
        value = value[int(index)]
    if isinstance(value, list | dict):
        raise EditError(f"{row.where}: the column `{name}` holds several values; name one of them, e.g. {{{name}[0]}}.")
    return str(value)
