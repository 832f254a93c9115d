"""Writes the reference of all settings from the classes that take them: each is explained in one place, the code."""

import ast
import dataclasses
import inspect
import itertools
import re
import textwrap
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from docstring_parser import DocstringStyle, parse

MISSING = inspect.Parameter.empty


@dataclass(frozen=True)
class Setting:
    """One setting of a class.

    Args:
        name: As it is written on the command line, without the prefix.
        kind: Its type in words.
        default: As Python writes it; ``MISSING`` if there is none.
        text: Its explanation.
    """

    name: str
    kind: str
    default: Any
    text: str


def settings_of(owner: type) -> list[Setting]:
    """What a class takes, in the order of its signature, that of the classes above it last.

    Args:
        owner: A settings dataclass, or a class whose ``__init__`` takes the settings.
    """
    found: dict[str, Setting] = {}
    for cls in inspect.getmro(owner):
        if cls.__module__.split(".")[0] not in ("lightning_edit", "callbacks", "datamodules"):
            continue
        texts = {**_in_docstring(cls), **_under_fields(cls)}
        for name, parameter in _parameters(cls):
            if name not in found and (owner is cls or _passes_on(owner)):
                found[name] = Setting(name, _kind(parameter.annotation), parameter.default, texts.get(name, ""))
            elif name in found and _refers(found[name].text):
                found[name] = dataclasses.replace(found[name], text=texts.get(name, found[name].text))
    return list(found.values())


def table_of(owner: type, prefix: str) -> str:
    """A Markdown table of the settings of a class.

    Args:
        owner: The class.
        prefix: What stands before the names on the command line.
    """
    lines = ["| setting | meaning |", "|---|---|"]
    for setting in settings_of(owner):
        default = "required" if setting.default is MISSING else f"default {_shown(setting.default)}"
        meaning = f"{setting.text}<br><small>{setting.kind}; {default}</small>"
        lines.append(f"| `{prefix}{setting.name}` | {meaning.replace('|', chr(92) + '|')} |")
    return "\n".join(lines)


def summary_of(owner: type) -> str:
    """The first paragraph of a class's docstring."""
    return _markdown((inspect.getdoc(owner) or "").split("\n\n")[0])


def _parameters(cls: type) -> Iterator[tuple[str, inspect.Parameter]]:
    if "__init__" not in vars(cls):
        return
    for name, parameter in list(inspect.signature(cls.__init__).parameters.items())[1:]:
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            yield name, parameter


def _passes_on(owner: type) -> bool:
    kinds = [parameter.kind for parameter in inspect.signature(owner.__init__).parameters.values()]
    return inspect.Parameter.VAR_KEYWORD in kinds


def _refers(text: str) -> bool:
    return not text or text.startswith("See ") or text.rstrip(".") == "The same"


def _in_docstring(cls: type) -> dict[str, str]:
    parsed = parse(vars(cls).get("__doc__") or "", DocstringStyle.GOOGLE)
    return {entry.arg_name: _markdown(entry.description or "") for entry in parsed.params}


def _under_fields(cls: type) -> dict[str, str]:
    """The texts that stand under the fields of a dataclass."""
    try:
        body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0].body  # type: ignore[attr-defined]
    except (OSError, TypeError, IndexError):
        return {}
    found = {}
    for node, below in itertools.pairwise(body):
        is_field = isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        if is_field and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            found[node.target.id] = _markdown(str(below.value.value))
    return found


def _markdown(text: str) -> str:
    """A docstring's text as Markdown in one line."""
    return re.sub(r"\s+", " ", text).strip().replace("``", "`").replace("$", "\\$")


def _kind(annotation: Any) -> str:
    if annotation is MISSING:
        return "any"
    if typing.get_origin(annotation) is typing.Annotated:
        kind, *metadata = typing.get_args(annotation)
        ranges = [str(entry) for entry in metadata if type(entry).__name__ == "Range"]
        return _kind(kind) + (f" ({', '.join(ranges)})" if ranges else "")
    if typing.get_origin(annotation) is list:
        return f"list of {_kind(typing.get_args(annotation)[0])}"
    if typing.get_origin(annotation) is typing.Literal:
        return ", ".join(f"`{value}`" for value in typing.get_args(annotation))
    parts = typing.get_args(annotation) if not isinstance(annotation, type) else ()
    if parts and typing.get_origin(annotation) not in (list, dict, tuple):
        return " or ".join("null" if part is type(None) else _kind(part) for part in parts)
    if isinstance(annotation, type) and not parts and not hasattr(annotation, "__origin__"):
        return annotation.__name__
    return re.sub(r"(\w+\.)+", "", str(annotation))


def _shown(default: Any) -> str:
    if dataclasses.is_dataclass(default):
        return "see below"
    if default is None:
        return "null"
    if isinstance(default, bool):
        return str(default).lower()
    return f"`{default}`" if default != "" else "none"
