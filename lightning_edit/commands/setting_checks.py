"""What the parser of settings lets through: endless YAML, null where a value is needed, names that are none."""

import dataclasses
import importlib
import inspect
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from jsonargparse import Namespace, get_loader, set_loader

from lightning_edit.errors import EditError
from lightning_edit.messages import quoted
from lightning_edit.storage.user.json import check_value
from lightning_edit.storage.user.yaml import check_yaml, place_of

SEEDS = 2**32
# Those whose class cannot be chosen, which the parser does not look into where they are no mapping.
SECTIONS = ("downstream", "harness", "collateral", "watch", "checkpoints", "retention")


def bound_yaml() -> None:
    """Lets the parser read files and values of the command line as `parse_yaml` does, by its own rules for numbers."""
    load = get_loader("yaml")

    def bounded(text: str, **options: Any) -> Any:
        try:
            check_yaml(text)
            # A null for a setting within settings comes round again as Python writes it.
            return None if text == "None" else load(text, **options)
        except yaml.YAMLError as error:
            raise EditError(place_of(error).removeprefix(", ").removeprefix(": ")) from error
        except (AttributeError, IndexError, KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
            if isinstance(error, EditError):
                raise
            raise EditError(f"not readable as YAML ({type(error).__name__}: {error}).") from error

    if not getattr(load, "bounded", False):
        bounded.bounded = True  # type: ignore[attr-defined]
        set_loader("yaml", bounded, (yaml.YAMLError, EditError))


def check_settings(config: Namespace) -> None:
    """Refuses settings that no class says no to in words.

    Args:
        config: The settings of a subcommand.

    Raises:
        EditError: For a null where a value is needed, a seed out of range, or a text with a NUL or half a character.
    """
    seed = config.get("seed_everything")
    if isinstance(seed, int) and not isinstance(seed, bool) and not 0 <= seed < SEEDS:
        raise EditError(f"`seed_everything` must be from 0 to {SEEDS - 1}, got {quoted(seed)}.")
    if config.get("trainer") is None:
        raise EditError("`trainer` needs its settings, got null. Leave it out for the defaults.")
    settings = config.as_dict()
    for name in SECTIONS:
        if not isinstance(settings.get(name, {}), Mapping):
            raise EditError(
                f"`{name}` needs its settings, got {quoted(settings[name])}. Leave it out for the defaults."
            )
    check_value(settings, "settings")
    for name, text in _texts("", settings):
        if "\0" in text:
            raise EditError(f"`{name}` holds a NUL character, which no name can: {quoted(text)}.")
    for name in ("model", "data"):
        _refuse_nulls(name, settings.get(name))


def _texts(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, Mapping | list | tuple):
        entries = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, entry in entries:
            inner = str(key) if key != "init_args" else ""
            yield from _texts(".".join(part for part in (name, inner) if part), entry)


def _refuse_nulls(name: str, value: Any, kind: Any = None) -> None:
    """Refuses a null among the settings of a class, and of the classes in them, whose type allows none."""
    if not isinstance(value, Mapping):
        return
    if "class_path" in value:
        module, _, path = value["class_path"].rpartition(".")
        kind, value = getattr(importlib.import_module(module), path), value.get("init_args") or {}
    if not inspect.isclass(kind):
        return
    hints = _hints(kind)
    for key, entry in value.items():
        hint = hints.get(key, Any)
        if entry is None and not _allows_none(hint):
            raise EditError(f"`{name}.{key}` needs a value of type {_shown(hint)}, got null.")
        _refuse_nulls(f"{name}.{key}", entry, hint)


def _hints(kind: type) -> dict[str, Any]:
    """The types of what a class is made from, what it passes on to its parents included."""
    if dataclasses.is_dataclass(kind):
        return typing.get_type_hints(kind)
    hints: dict[str, Any] = {}
    for part in reversed(inspect.getmro(kind)):
        if "__init__" in vars(part) and part.__module__.partition(".")[0] not in ("builtins", "torch", "lightning"):
            hints |= typing.get_type_hints(part.__init__)  # type: ignore[misc]
    return hints


def _allows_none(hint: Any) -> bool:
    return hint in (Any, None, types.NoneType) or any(map(_allows_none, typing.get_args(hint)))


def _shown(hint: Any) -> str:
    return hint.__name__ if inspect.isclass(hint) and not typing.get_args(hint) else str(hint).replace("typing.", "")
