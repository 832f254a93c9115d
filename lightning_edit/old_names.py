"""Settings whose names have changed: old ones are read everywhere, with a warning that says the new one."""

import warnings
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar

SETTINGS = {"separate_updates": "independent_updates"}
DISTRIBUTIONS = {"ends": "first_last", "highest": "last"}
VALUES = {"layer_distribution": DISTRIBUTIONS, "distribution": DISTRIBUTIONS}

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def current_name(name: str, warn: bool = True) -> str:
    """The name that a setting has now.

    Args:
        name: Its name, perhaps an old one; dotted names of sections may come before it.
        warn: Whether an old name deserves a warning.
    """
    sections, dot, last = name.rpartition(".")
    if warn and last in SETTINGS:
        _warn(f"the setting `{last}`", SETTINGS[last])
    return f"{sections}{dot}{SETTINGS.get(last, last)}"


def current_value(name: str, value: Any, warn: bool = True) -> Any:
    """What a value of a setting is called now.

    Args:
        name: The setting; dotted names of sections may come before it.
        value: Its value; a dictionary or list is looked through.
        warn: Whether an old name deserves a warning.
    """
    if isinstance(value, Mapping):
        return current(value, warn)
    if isinstance(value, list):
        return [current_value(name, entry, warn) for entry in value]
    renamed = VALUES.get(name.rpartition(".")[2], {})
    if not isinstance(value, str) or value not in renamed:
        return value
    if warn:
        _warn(f"`{name.rpartition('.')[2]}: {value}`", renamed[value])
    return renamed[value]


def current(settings: Mapping[str, Any], warn: bool = True) -> dict[str, Any]:
    """Settings under the names that they have now.

    Args:
        settings: Settings by name, nested as in a configuration.
        warn: Whether an old name deserves a warning.
    """
    return {current_name(str(name), warn): current_value(str(name), value, warn) for name, value in settings.items()}


def reads_old_names(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Lets a function or constructor be called with settings under their old names.

    Args:
        function: Takes these settings as keywords.
    """

    @wraps(function)
    def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        # Arguments that are no settings are handed on as they are: a dictionary of tensors has keys of its own.
        named = {current_name(name): value for name, value in kwargs.items()}
        plain = {name: current_value(name, value) for name, value in named.items() if isinstance(value, str | list)}
        return function(*args, **{**named, **plain})

    return call


def _warn(old: str, new: str) -> None:
    warnings.warn(
        f"{old} has been renamed to `{new}`; the old name will not be accepted forever.", FutureWarning, stacklevel=4
    )
