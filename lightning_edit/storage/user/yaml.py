"""YAML of a user's, looked through before anything is made of it: aliases can stand for more than fits a memory."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lightning_edit.errors import EditError
from lightning_edit.messages import quoted
from lightning_edit.storage.user.files import read_text
from lightning_edit.storage.user.json import DEPTH, check_value

LARGEST = 2**23
NODES = 100_000

# The fast loader has no bound of its own and ends the process where a text is nested too deep; its events are safe.
_PARSER = getattr(yaml, "CLoader", yaml.Loader)
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_RESOLVER = yaml.resolver.Resolver()
TEXT, MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"


def read_yaml(path: str | Path, named: str = "") -> Any:
    """The value of a YAML file.

    Args:
        path: The file.
        named: How a message begins, such as "`tasks`: ".

    Raises:
        EditError: See `read_text` and `parse_yaml`.
    """
    return parse_yaml(read_text(path, named, LARGEST), str(path))


def parse_yaml(text: str, where: str) -> Any:
    """A YAML value, of plain types only.

    Args:
        text: One YAML document.
        where: The file, for messages.

    Raises:
        EditError: If it is no YAML, see `check_yaml`, or holds what no plain type can.
    """
    try:
        check_yaml(text)
        # Types and dates that are wrong, numbers of thousands of digits and keys that are lists are found only here.
        value = yaml.load(text, Loader=_LOADER)
    except EditError as error:
        raise EditError(f"{where}, {error}") from error
    except yaml.YAMLError as error:
        raise EditError(f"{where}{place_of(error)}") from error
    except (ValueError, TypeError, AttributeError, KeyError, IndexError, OverflowError, RecursionError) as error:
        raise EditError(f"{where}: not readable as YAML ({type(error).__name__}: {error}).") from error
    check_value(value, where)
    return value


def place_of(error: yaml.YAMLError) -> str:
    """Line and column of a fault, and what it is, to follow the name of a file.

    Args:
        error: From the YAML library.
    """
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or " ".join(str(error).split())
    place = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
    return f"{place}: not YAML ({problem})."


def check_yaml(text: str) -> None:
    """Refuses YAML that would become too large or too deep a value.

    Args:
        text: One YAML document.

    Raises:
        EditError: With the line, if it is nested too deep, has an alias inside of what that stands for, has too many
            values once each alias is replaced by what it stands for, or gives a name twice.
        yaml.YAMLError: If it is no YAML.
    """
    anchored: dict[str, tuple[int, int]] = {}
    opened = [_Collection()]
    for event in yaml.parse(text, Loader=_PARSER):
        size, height = 1, 0
        opened[-1].begins(event)
        if isinstance(event, yaml.CollectionStartEvent):
            opened.append(_Collection(event.anchor, size, isinstance(event, yaml.MappingStartEvent)))
            if len(opened) - 1 > DEPTH:
                raise EditError(f"line {_line(event)}: nested more than {DEPTH} levels deep.")
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            ended = opened.pop()
            anchor, size, height = ended.anchor, ended.size, ended.height + 1
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor in [collection.anchor for collection in opened]:
                raise EditError(f"line {_line(event)}: the alias *{event.anchor} stands inside of what it stands for.")
            # An alias to nothing is found by the loader.
            size, height = anchored.get(event.anchor, (1, 0))
            anchor = None
        elif isinstance(event, yaml.ScalarEvent):
            anchor = event.anchor
        else:
            continue
        if anchor is not None:
            anchored[anchor] = size, height
        opened[-1].size += size
        opened[-1].height = max(opened[-1].height, height)
        if opened[-1].size > NODES:
            raise EditError(f"line {_line(event)}: more than {NODES:,} values, those that aliases stand for included.")
        if len(opened) - 1 + height > DEPTH:
            raise EditError(f"line {_line(event)}: nested more than {DEPTH} levels deep.")


@dataclass
class _Collection:
    """A list or mapping that is open, or the document.

    Args:
        anchor: Its name, if it has one.
        size: How many values it has so far, aliases replaced.
        names: Whether it is a mapping, of names and values in turn.
    """

    anchor: str | None = None
    size: int = 0
    names: bool = False
    height: int = field(default=0, init=False)
    _known: set[tuple[str, str]] = field(default_factory=set, init=False)
    _children: int = field(default=0, init=False)

    def begins(self, event: yaml.Event) -> None:
        """Counts a child, and refuses the name of a mapping that it has already: the last one would count."""
        if isinstance(event, yaml.NodeEvent):
            self._children += 1
        if self.names and self._children % 2 and isinstance(event, yaml.ScalarEvent):
            # What is quoted, or reads as a text without quotes, is a text: `a` and "a" are one name, 1 and "1" are two.
            quotes = event.style in ('"', "'")
            kind = TEXT if quotes else _RESOLVER.resolve(yaml.ScalarNode, event.value, (True, False))
            name = (event.value, kind)
            # Several are merged.
            if name in self._known and kind != MERGE:
                raise EditError(f"line {_line(event)}: {quoted(event.value)} is given a second time. Keep one of them.")
            self._known.add(name)


def _line(event: yaml.Event) -> int:
    return int(event.start_mark.line) + 1
