"""Paths that a command hands on to the parser, which reads values as YAML."""

import json

from lightning_edit.errors import EditError
from lightning_edit.storage.user.yaml import parse_yaml


def path_setting(name: str, path: str) -> tuple[str, str]:
    """A setting and its value so that the parser takes the path as it is, also where it is YAML of something else.

    ``null`` is nothing in YAML, ``#facts.csv`` a comment, ``[a]`` a list and ``a: b`` a mapping. Quotes do not help:
    the parser takes them as part of a text. With ``./`` before it the same path is a text, but for a mapping; that one
    may be quoted among the settings of its class.

    Args:
        name: The setting of a class as on the command line, such as ``--data.path``.
        path: Its value.

    Example:
        >>> path_setting("--data.path", "edits.csv"), path_setting("--data.path", "#1.csv")
        (('--data.path', 'edits.csv'), ('--data.path', './#1.csv'))
        >>> path_setting("--data.path", "a: b")
        ('--data.init_args', '{"path": "a: b"}')
    """
    if not path or _is_read_as_text(path):
        return name, path
    if not path.startswith(("/", "~")) and _is_read_as_text(f"./{path}"):
        return name, f"./{path}"
    owner, _, last = name.rpartition(".")
    return f"{owner}.init_args", json.dumps({last: path}, ensure_ascii=False)


def _is_read_as_text(text: str) -> bool:
    try:
        # The parser leaves numbers and truth values as they were written where a text is needed.
        return isinstance(parse_yaml(text, "a value"), str | int | float)
    except EditError:
        return False
