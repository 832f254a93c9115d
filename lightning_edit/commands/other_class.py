"""A class that is named in place of another one begins with its own defaults.

The parser keeps the settings of the class before which the new one has as well, by their names. For a solver that is
wrong: EMMET's weight of preservation says nothing of MEMIT's.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jsonargparse import _typehints


@contextmanager
def begun_anew(*kinds: type) -> Iterator[None]:
    """Lets the parser drop all settings of a class that another one replaces, inside a ``with`` block.

    Only settings from before the new class is named are dropped: those of defaults and of earlier files. What names the
    same class again changes nothing.

    Args:
        kinds: The classes for whose subclasses this holds. Others, such as modules and data sets, share settings that
            mean the same in each of them.
    """
    # The parser drops what the new class does not accept, and offers no way to drop the rest as well.
    unaccepted = _typehints.discard_init_args_on_class_path_change

    def discard(parser_or_action: Any, before: Any, now: Any) -> None:
        if _is_another(before, now, kinds):
            settings = before["init_args"]
            for name in list(settings.keys()):
                settings.pop(name)
        else:
            unaccepted(parser_or_action, before, now)

    _typehints.discard_init_args_on_class_path_change = discard
    try:
        yield
    finally:
        _typehints.discard_init_args_on_class_path_change = unaccepted


def _is_another(before: Any, now: Any, kinds: tuple[type, ...]) -> bool:
    """Whether a class of some kinds, with settings, is replaced by another class."""
    if not before or not before.get("init_args") or not before.get("class_path"):
        return False
    first, second = (_typehints.import_object(spec["class_path"]) for spec in (before, now))
    return first is not second and isinstance(second, type) and issubclass(second, kinds)
