"""The form of what a file holds: written down once, and compared with what was read before anything uses it.

`tensor_form` has the forms of tensors; this module is used where torch, which takes seconds to import, is not needed.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from lightning_edit.errors import EditError

Form = Callable[[Any, str], None]
LARGEST = 2**53
SHOWN = 60


class WrongFormError(EditError):
    """Something in a file is not of the form that the file should have.

    Args:
        place: Where in the file, names and numbers with dots between them.
        expected: What should be there.
        got: What is there.
    """

    def __init__(self, place: str, expected: str, got: Any) -> None:
        shown = f"a tensor {tuple(got.shape)} of {got.dtype}" if hasattr(got, "dtype") else repr(got)[:SHOWN]
        super().__init__(f"{place or 'its content'}: expected {expected}, got {shown}")


def text(value: Any, place: str) -> None:
    """A text."""
    if not isinstance(value, str):
        raise WrongFormError(place, "a text", value)


def digits(value: Any, place: str) -> None:
    """The number of a layer as a text."""
    if not (isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 9):
        raise WrongFormError(place, "the number of a layer", value)


def flag(value: Any, place: str) -> None:
    """True or false."""
    if not isinstance(value, bool):
        raise WrongFormError(place, "true or false", value)


def count(value: Any, place: str) -> None:
    """A whole number that is not negative."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < LARGEST:
        raise WrongFormError(place, "a whole number from 0", value)


def number(value: Any, place: str) -> None:
    """A number, also one that is not finite."""
    if not isinstance(value, int | float) or isinstance(value, bool) or (isinstance(value, int) and value > LARGEST):
        raise WrongFormError(place, "a number", value)


def finite(value: Any, place: str) -> None:
    """A finite number."""
    number(value, place)
    if not math.isfinite(value):
        raise WrongFormError(place, "a finite number", value)


def anything(value: Any, place: str) -> None:
    """Whatever there is: who uses it looks at it."""


def maybe(form: Form) -> Form:
    """None, or what has a form."""

    def check(value: Any, place: str) -> None:
        if value is not None:
            form(value, place)

    return check


def each(form: Form) -> Form:
    """A list whose entries have a form."""

    def check(value: Any, place: str) -> None:
        if not isinstance(value, list | tuple):
            raise WrongFormError(place, "a list", value)
        for position, entry in enumerate(value):
            form(entry, f"{place}.{position}")

    return check


def table(key: Form, entry: Form) -> Form:
    """A mapping whose names and entries have a form."""

    def check(value: Any, place: str) -> None:
        if not isinstance(value, Mapping):
            raise WrongFormError(place, "a table", value)
        for name, content in value.items():
            key(name, f"the names in {place}")
            entry(content, f"{place}.{name}".lstrip("."))

    return check


def fields(needed: Mapping[str, Form], optional: Mapping[str, Form] | None = None, others: bool = False) -> Form:
    """A mapping with given names.

    Args:
        needed: The form of what must be there.
        optional: The form of what may be there.
        others: Whether there may be more.
    """
    forms = {**needed, **(optional or {})}

    def check(value: Any, place: str) -> None:
        if not isinstance(value, Mapping):
            raise WrongFormError(place, f"a table with {', '.join(needed)}" if needed else "a table", value)
        for name in needed:
            if name not in value:
                raise WrongFormError(place, f"a table with {name}", sorted(map(str, value)))
        for name, content in value.items():
            if name in forms:
                forms[name](content, f"{place}.{name}".lstrip("."))
            elif not others:
                raise WrongFormError(place, f"only {', '.join(forms)}", name)

    return check
