"""Values of the command line that are texts, though YAML would read something else in them: ``Fact: {}``, ``#``."""

import types
from collections.abc import Iterator
from typing import Annotated, Any, Union, get_args, get_origin

import yaml

from lightning_edit.errors import EditError
from lightning_edit.settings import Checked, Settings, accepted
from lightning_edit.storage.user.yaml import parse_yaml


class PlainText(str):
    """A text that the parser takes as it is: it reads YAML in those of the type ``str`` alone."""

    __slots__ = ()


yaml.SafeDumper.add_representer(PlainText, lambda dumper, text: dumper.represent_str(str(text)))


def plain_text(name: str, value: str) -> str:
    """A value of the command line, as a `PlainText` where its setting is a text and YAML would read another type.

    ``null`` is left to YAML.

    Args:
        name: The dotted name of the setting, without dashes.
        value: What was given.
    """
    if "." not in name or value.strip().lower() in ("", "null"):
        return value
    try:
        read = parse_yaml(value, name)
    except EditError:
        # Whoever needs YAML there says what is wrong.
        return value
    if isinstance(read, str):
        return value
    kinds = _kinds(name.rpartition(".")[2])
    # A list or number may be meant where a setting accepts one; what vanishes as a comment is not.
    return PlainText(value) if kinds == {str} or (str in kinds and read is None) else value


def settle_texts(config: Any) -> None:
    """Makes ordinary texts of those that the parser took as they are, once it has read everything.

    Args:
        config: What was parsed, changed in place.
    """
    for name, value in list(config.items()):
        if isinstance(value, PlainText):
            config[name] = str(value)


def _kinds(name: str) -> set[Any]:
    """What settings of a name accept; not kept, as there are more classes later."""
    owners = (*_subclasses(Checked), *_subclasses(Settings))
    annotations = [settings[name] for settings in map(accepted, owners) if name in settings]
    return {kind for annotation in annotations for kind in _plain(annotation)} - {type(None)}


def _plain(annotation: Any) -> Iterator[Any]:
    """What a union accepts, without metadata."""
    if get_origin(annotation) is Annotated:
        yield from _plain(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from _plain(part)
    else:
        yield annotation


def _subclasses(base: type) -> Iterator[type]:
    children: list[type] = base.__subclasses__()
    for child in children:
        yield child
        yield from _subclasses(child)
