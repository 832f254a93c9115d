"""Values of the command line that are texts, though YAML would read something else in them: ``Fact: {}``, ``#``."""

from collections.abc import Iterator
from typing import Any

import yaml

from lightning_edit.errors import EditError
from lightning_edit.settings import Checked, Settings, accepted, fits
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
    owners = map(accepted, (*subclasses(Checked), *subclasses(Settings)))
    annotations = [settings[last] for settings in owners if (last := name.rpartition(".")[2]) in settings]
    # A list or number may be meant where a setting accepts one; what vanishes as a comment is not.
    meant = read is not None and any(fits(read, one) for one in annotations)
    return PlainText(value) if not meant and any(fits(value, one) for one in annotations) else value


def settle_texts(config: Any) -> None:
    """Makes ordinary texts of those that the parser took as they are, once it has read everything.

    Args:
        config: What was parsed, changed in place.
    """
    for name, value in list(config.items()):
        if isinstance(value, PlainText):
            config[name] = str(value)


def subclasses(base: type) -> Iterator[type]:
    """All classes below one that were imported so far.

    Args:
        base: The class.
    """
    children: list[type] = base.__subclasses__()
    for child in children:
        yield child
        yield from subclasses(child)
