"""Settings as texts, numbers, lists and dictionaries, which JSON and safe checkpoints can hold."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from lightning_edit.solvers import PostProcessor, Solver
from lightning_edit.storage.known_classes import names_of


def plain(value: Any) -> Any:
    """A setting in the form in which a YAML file would give it.

    Args:
        value: A setting: a solver or post-processor becomes ``class_path``, its public name, and ``init_args``, another
            dataclass its fields, and any other object its ``repr``.
    """
    if isinstance(value, Solver | PostProcessor) and dataclasses.is_dataclass(value):
        return {"class_path": names_of(type(value))[0], "init_args": dataclasses.asdict(value)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {str(name): plain(entry) for name, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(entry) for entry in value]
    return value if value is None or isinstance(value, str | int | float | bool) else repr(value)
