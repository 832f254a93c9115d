"""What a setting may be and what it changes: declared once, on the field or argument, and checked in one place."""

import inspect
import math
import os
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from numbers import Integral, Real
from typing import Annotated, Any, ClassVar, Literal, Self, Union, get_args, get_origin

import docstring_parser

from lightning_edit.errors import EditError
from lightning_edit.old_names import current


@dataclass(frozen=True)
class Range:
    """The numbers that a setting accepts, as metadata of ``Annotated``; infinity and NaN are never among them.

    Args:
        at_least: The smallest one.
        above: All accepted ones are larger.
        at_most: The largest one.
        below: All accepted ones are smaller.
    """

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None

    def __contains__(self, value: Any) -> bool:
        """Whether a finite number is in the range."""
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def __repr__(self) -> str:
        """In words, as ``--help`` and messages show it."""
        if self.at_least is not None and self.at_most is not None:
            return f"from {self.at_least} to {self.at_most}"
        limits = (
            *((f"{self.at_least} or more", self.at_least), (f"above {self.above}", self.above)),
            *((f"at most {self.at_most}", self.at_most), (f"below {self.below}", self.below)),
        )
        return " and ".join(text for text, limit in limits if limit is not None)


@dataclass(frozen=True)
class Compared:
    """Where a setting tells runs apart, as metadata of ``Annotated``; without it, everywhere.

    Args:
        resuming: Whether a run may only go on with the value that it began with.
        methods: Whether runs with different values are different methods (or data sets) in a comparison.
    """

    resuming: bool = True
    methods: bool = True

    def __repr__(self) -> str:
        """Nothing that a reader of ``--help`` needs."""
        return "any"


# Where things are kept, how fast they go and what is measured: no edit depends on it.
NO_EFFECT = Compared(resuming=False, methods=False)
# Names what is read; a run that goes on compares what was read, not its name.
SOURCE = Compared(resuming=False)
# How many edits there are, or are worked on at once: runs of one method may differ in it.
AMOUNT = Compared(methods=False)

# What loops and tensors count in.
LARGEST = 2**63 - 1
Positive = Annotated[float, Range(above=0)]
NotNegative = Annotated[float, Range(at_least=0)]
Rate = Annotated[float, Range(above=0, at_most=1e37)]  # torch takes it, ten times over, as a float32.
Share = Annotated[float, Range(at_least=0, at_most=1)]
Count = Annotated[int, Range(at_least=1)]
CountOrZero = Annotated[int, Range(at_least=0)]
# Numbers of blocks, or those that suit the model.
Layers = list[CountOrZero] | CountOrZero | Literal["auto"]
# What every random generator takes.
Seed = Annotated[int, Range(at_least=0, at_most=2**32 - 1)]


@dataclass(frozen=True)
class Settings:
    """A dataclass of settings that refuses values out of their range.

    Attributes:
        section: Where a configuration has these settings, for messages.
        compared: Where they tell runs apart. On the class, as the command line's parser takes no dataclass inside of
            ``Annotated`` from Python 3.12 on.

    Raises:
        EditError: If a value is not what its field accepts.
    """

    section: ClassVar[str] = ""
    compared: ClassVar[Compared] = Compared()

    def __init_subclass__(cls) -> None:
        _explain(cls)

    def __post_init__(self) -> None:
        check(type(self), vars(self))


class Checked:
    """A class whose constructor refuses arguments out of their range before anything else happens.

    Attributes:
        section: Where a configuration has these settings, for messages; empty where the class's name says it.

    Raises:
        EditError: If an argument is not what its annotation accepts.
    """

    section: ClassVar[str] = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" not in vars(cls):
            _explain(cls)

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Checks the arguments; a copy is made without any."""
        names = list(inspect.signature(cls.__init__).parameters)[1:]
        check(cls, {**dict(zip(names, args, strict=False)), **kwargs})
        return super().__new__(cls)


def _explain(owner: type) -> None:
    """Puts the explanations that stand under the fields of a class into its docstring, where ``--help`` looks."""
    annotations = vars(owner).get("__annotations__", {}).values()
    if all(get_origin(annotation) is ClassVar for annotation in annotations):
        return
    try:
        explained = docstring_parser.parse_from_object(owner).params
    except OSError:  # made where there is no source
        return
    lines = [f"    {field.arg_name}: {' '.join((field.description or '').split())}" for field in explained]
    if lines and owner.__doc__ is not None:
        owner.__doc__ = "\n".join([inspect.cleandoc(owner.__doc__), "", "Args:", *lines])


def check(owner: Any, values: Mapping[str, Any]) -> None:
    """Refuses settings that are not what their annotations accept.

    Args:
        owner: The class or function that takes them.
        values: Settings by name; names that are unknown are passed over.

    Raises:
        EditError: Says what was expected and what was got.
    """
    annotations = accepted(owner)
    # Whoever takes settings under old names says so.
    for name, value in current(values, warn=False).items():
        if name in annotations:
            section = getattr(owner, "section", "")
            where = f"`{section}.{name}`" if section else f"{owner.__name__}: `{name}`"
            refuse_unfit(where, value, annotations[name])


def refuse_unfit(where: str, value: Any, annotation: Any) -> None:
    """Refuses one value that is not what an annotation accepts.

    Args:
        where: How messages call the setting.
        value: What was given.
        annotation: What is accepted.

    Raises:
        EditError: Says what was expected and what was got.
    """
    if isinstance(value, Integral) and abs(int(value)) > LARGEST:
        raise EditError(f"{where} is too large a number, got {str(value)[:40]}: at most {LARGEST}.")
    if not fits(value, annotation):
        shown = repr(value) if len(repr(value)) < 80 else f"{repr(value)[:77]}..."
        raise EditError(f"{where} must be {_words(annotation)}, got {shown}.")


def as_number(text: str) -> int | float:
    """The number that a text on the command line means, as YAML reads it.

    Args:
        text: A number; ``.nan`` and ``.inf`` are some as well.
    """
    plain = text.strip().replace("_", "").lower()
    try:
        return int(plain)
    except ValueError:
        return float(plain.replace(".inf", "inf").replace(".nan", "nan"))


def accepted(owner: Any) -> dict[str, Any]:
    """The annotations of all settings, by name; a class has those that it passes on to its parents as well.

    Args:
        owner: A class, or a function.
    """
    annotations: dict[str, Any] = {}
    for function in _constructors(owner) if isinstance(owner, type) else [owner]:
        parameters = inspect.signature(function).parameters.values()
        for parameter in parameters:
            several = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            if parameter.annotation is not parameter.empty and not several:
                annotations.setdefault(parameter.name, parameter.annotation)
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
            break
    return annotations


def _constructors(owner: type) -> Iterator[Any]:
    return (vars(part)["__init__"] for part in inspect.getmro(owner) if "__init__" in vars(part))


def not_compared(owner: type, where: Literal["resuming", "methods"]) -> set[str]:
    """The dotted names of settings that do not tell runs apart.

    Args:
        owner: A class that takes settings.
        where: In what kind of comparison, see `Compared`.
    """
    names = set()
    for name, annotation in accepted(owner).items():
        base, metadata = _bare(annotation)
        metadata = (*metadata, getattr(base, "compared", None))
        if any(isinstance(entry, Compared) and not getattr(entry, where) for entry in metadata):
            names.add(name)
        elif is_dataclass(base) and isinstance(base, type):
            names |= {f"{name}.{inner}" for inner in not_compared(base, where)}
    return names


def settings_without_effect(owners: Mapping[str, type], where: Literal["resuming", "methods"]) -> set[str]:
    """The dotted names in a run's configuration that do not tell runs apart.

    Args:
        owners: The classes that take the settings, by the name of their section.
        where: In what kind of comparison, see `Compared`.
    """
    return {f"{section}.{name}" for section, owner in owners.items() for name in not_compared(owner, where)}


def compared_fields(settings: Settings) -> dict[str, Any]:
    """The fields of a dataclass that tell its results from others.

    Args:
        settings: The dataclass.
    """
    skipped = not_compared(type(settings), "resuming")
    return {field.name: getattr(settings, field.name) for field in fields(settings) if field.name not in skipped}


def _bare(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """A type without its metadata, and the metadata."""
    if get_origin(annotation) is Annotated:
        base, *metadata = get_args(annotation)
        return base, tuple(metadata)
    return annotation, ()


def fits(value: Any, annotation: Any) -> bool:
    """Whether a value is what an annotation accepts.

    Args:
        value: The value of a setting.
        annotation: Its annotation.
    """
    base, metadata = _bare(annotation)
    origin, inside = get_origin(base), get_args(base)
    if origin in (Union, types.UnionType):
        return any(fits(value, choice) for choice in inside)
    if origin is Literal:
        return isinstance(value, str | int | None) and value in inside
    if origin is list:
        return isinstance(value, list | tuple) and all(fits(entry, inside[0]) for entry in value)
    if base in (int, float):
        number = isinstance(value, Integral if base is int else Real) and not isinstance(value, bool)
        return number and math.isfinite(value) and all(value in entry for entry in metadata if isinstance(entry, Range))
    if base is str:
        return isinstance(value, str | os.PathLike)
    kind = origin or base
    return not isinstance(kind, type) or isinstance(value, kind)


def _words(annotation: Any) -> str:
    """What is accepted, in words."""
    base, metadata = _bare(annotation)
    origin, inside = get_origin(base), get_args(base)
    if base is None or base is type(None):
        return "null"
    if origin in (Union, types.UnionType):
        return _joined([_words(choice) for choice in inside])
    if origin is Literal:
        return f"{'one of ' if len(inside) > 2 else ''}{_joined([str(choice) for choice in inside])}"
    if origin is list:
        return f"a list (each {_words(inside[0])})"
    if base in (int, float):
        limits = [repr(entry) for entry in metadata if isinstance(entry, Range)]
        words = "a whole number" if base is int else "a number"
        return " ".join([words, *(("of " if limit[0].isdigit() else "") + limit for limit in limits)])
    names = {str: "a text", bool: "true or false", dict: "a dictionary"}
    return names.get(origin or base) or f"a {getattr(origin or base, '__name__', base)}"


def _joined(words: Sequence[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]
