"""Settings that have no effect beside another one, refused so that nobody takes them for effective."""

from collections.abc import Collection
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
    own = [field for field in fields(settings) if field.name in names]
    changed = [f"`{settings.section}.{one.name}`" for one in own if getattr(settings, one.name) != _default(one)]
    if changed:
        have, them = ("has", "it") if len(changed) == 1 else ("have", "them")
        raise EditError(f"{listed(changed)} {have} no effect with {beside}. {remedy}, or leave {them} out.")


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()
