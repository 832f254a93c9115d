"""Settings that have no effect beside another one, refused so that nobody takes them for effective."""

import inspect
from collections.abc import Collection, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any

from lightning_edit.errors import EditError
from lightning_edit.messages import listed


def refuse_changed(settings: Any, names: Collection[str], beside: str, remedy: str) -> None:
    """Refuses settings that are not what they are by default, where they have no effect.

    Args:
        settings: A dataclass of settings with a ``section``.
        names: Fields of it that have no effect.
        beside: Because of what, such as "`values.optimizer: adam`".
        remedy: What gives them one, such as "Set `values.optimizer` to descent".

    Raises:
        EditError: If one of them was changed; says what to do.
    """
    _refuse(settings.section, changed(settings, names), beside, remedy)


def changed(settings: Any, names: Collection[str]) -> list[str]:
    """Which settings are not what they are by default.

    Args:
        settings: A dataclass of settings.
        names: Fields of it.
    """
    own = [field for field in fields(settings) if field.name in names]
    return [one.name for one in own if getattr(settings, one.name) != _default(one)]


def refuse_given(callback: Any, given: Mapping[str, Any], beside: str, remedy: str, base: Any = object) -> None:
    """Refuses arguments of a callback that are not what they are by default, where they have no effect.

    Args:
        callback: Whose constructor takes them; its settings are called like its class in small letters.
        given: Arguments by name.
        beside: Because of what, such as "`downstream.tasks` empty".
        remedy: What gives them an effect, such as "Set `downstream.tasks`".
        base: A class above it whose constructor takes those of them that its own passes on.

    Raises:
        EditError: If one of them was changed; says what to do.
    """
    parameters = {
        **inspect.signature(base.__init__).parameters,
        **inspect.signature(type(callback).__init__).parameters,
    }
    changed = [name for name, value in given.items() if value != parameters[name].default]
    _refuse(type(callback).__name__.lower(), changed, beside, remedy)


def _refuse(section: str, changed: Collection[str], beside: str, remedy: str) -> None:
    if changed:
        have, them = ("has", "it") if len(changed) == 1 else ("have", "them")
        names = listed(f"`{section}.{name}`" for name in changed)
        raise EditError(f"{names} {have} no effect with {beside}. {remedy}, or leave {them} out.")


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()
