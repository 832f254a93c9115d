"""A model's weights with some of its updates in them, for a while; in the end all are as they were."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from lightning_edit.errors import EditError
from lightning_edit.models.turns import turn_with
from lightning_edit.solvers.base import Factors
from lightning_edit.storage.fingerprint import fingerprint
from lightning_edit.updates.levels import Level, Levels, edited_modules, levels_of, weight_of, write_level


@dataclass(frozen=True)
class Added:
    """What was in a weight at one time.

    Args:
        base: The fingerprint of the weight without updates.
        total: The sum of the updates, None of none.
    """

    base: str
    total: Factors | None = None


def added_now(model: Any) -> dict[str, Added]:
    """What is in each weight that holds updates, by the name of its module.

    Args:
        model: The model.
    """
    tops = {name: levels.top for name, (_, levels) in edited_modules(model).items()}
    return {name: Added(top.fingerprint, top.total) for name, top in tops.items() if top is not None}


# Shows other updates instead, inside a ``with`` block.
Instead = Callable[[Mapping[str, Added]], AbstractContextManager[None]]


@contextmanager
def shown(model: Any, wanted: Mapping[str, Added], left_alone: Collection[str] = ()) -> Iterator[Instead]:
    """The model with what was in its weights at one time and no other updates, inside a ``with`` block.

    Other threads that edit or show the model wait for its end.

    Args:
        model: The model.
        wanted: What was in each weight, see `added_now`; a weight that is not named had no update.
        left_alone: Names of modules that are not looked at.

    Yields:
        What shows other updates of the same weights, inside of that block.

    Raises:
        EditError: If a weight was changed by something else since; nothing is changed then.
    """
    with turn_with(model):
        modules = {name: module for name, (module, _) in edited_modules(model).items()}
        modules |= {name: model.get_submodule(name) for name in wanted}
        modules = {name: module for name, module in modules.items() if name not in left_alone}
        bases = {name: _base_of(name, module, wanted.get(name)) for name, module in modules.items()}

        @contextmanager
        def instead(other: Mapping[str, Added]) -> Iterator[None]:
            saved = {name: weight_of(module).clone() for name, module in modules.items()}
            try:
                for name, module in modules.items():
                    there = other.get(name)
                    write_level(weight_of(module), bases[name], None if there is None else there.total)
                yield
            finally:
                for name, module in modules.items():
                    write_level(weight_of(module), saved[name], None)

        with instead(wanted):
            yield instead


def _base_of(name: str, module: nn.Module, wanted: Added | None) -> Tensor:
    """The weight of a module without updates."""
    levels, weight = levels_of(module), weight_of(module)
    top = levels.top
    if top is not None and top.holds(weight):
        for level in levels.stack:
            if wanted is None or level.fingerprint == wanted.base:
                return level.base
    # Nothing was ever added to it, or it is shown so already.
    if wanted is not None and fingerprint(weight) == wanted.base:
        return weight.clone()
    raise EditError(
        f"The weight of {name} was changed by something else since it was edited, so it is not known how the model was "
        "at that time. Give it the weights back that it had, or look at `before` and `after` before it is changed."
    )


@contextmanager
def put_back(model: Any) -> Iterator[None]:
    """Takes out of a model what is edited inside of the ``with`` block, and puts back what is taken out there.

    Other threads that edit or show the model wait for its end.

    Args:
        model: The model.
    """
    with turn_with(model):
        edited = edited_modules(model)
        before = {name: _copied(levels) for name, (_, levels) in edited.items()}
        weights = {name: (weight_of(module), levels.top) for name, (module, levels) in edited.items()}
        # What something else has changed is not known from what is beside it.
        changed = {name: one.clone() for name, (one, top) in weights.items() if top is not None and not top.holds(one)}
        try:
            yield
        finally:
            modules = {name: module for name, (module, _) in edited_modules(model).items()}
            for name, module in (modules | {name: model.get_submodule(name) for name in before}).items():
                levels, stack = levels_of(module), before.get(name, [])
                if name in changed:
                    write_level(weight_of(module), changed[name], None)
                elif stack:
                    stack[-1].write(weight_of(module))
                else:
                    write_level(weight_of(module), levels.stack[0].base, None)
                levels.stack = stack


def _copied(levels: Levels) -> list[Level]:
    """Levels whose updates do not change with those of the weight; the tensors are the same."""
    return [Level(level.base, level.fingerprint, dict(level.parts), dict(level._order)) for level in levels.stack]
