"""What updates are in a weight, and what lies under them: kept beside the weight itself, in its module."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lightning_edit.distributed.sharded_weights import whole
from lightning_edit.models.finding.sites import oriented_weight
from lightning_edit.solvers.base import Factors
from lightning_edit.storage.fingerprint import fingerprint
from lightning_edit.updates.sums import add_factors, is_sum, write_weight

ATTRIBUTE = "lightning_edit_levels"


@dataclass(frozen=True)
class Part:
    """One update of a weight.

    Args:
        factors: Delta ``(d_out, d_in)``.
        keys: The keys ``(d_in, n)`` of its edits, None where they are not known.
        facts: For each key the subject and prompt of its edit.
        statistics: What a source had seen once these edits were made.
    """

    factors: Factors
    keys: Tensor | None = None
    facts: tuple[tuple[str, str], ...] = ()
    statistics: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Level:
    """A weight and the updates that were made for it.

    Args:
        base: The weight ``(d_out, d_in)`` without them, of experts ``(d_out, E, d_in)``.
        fingerprint: That of the base.
        parts: The updates, by the identity of each, in the order in which they were first inserted.
    """

    base: Tensor
    fingerprint: str
    parts: dict[str, Part] = field(default_factory=dict)
    _order: dict[str, int] = field(default_factory=dict)

    def put(self, identity: str, part: Part) -> None:
        """Adds an update; one that was here before gets its place again, so that the sum rounds as before."""
        self._order.setdefault(identity, len(self._order))
        self.parts[identity] = part
        self.parts = dict(sorted(self.parts.items(), key=lambda entry: self._order[entry[0]]))

    @property
    def total(self) -> Factors | None:
        """The sum of the updates."""
        return total_of({name: part.factors for name, part in self.parts.items()})

    def holds(self, weight: Tensor) -> bool:
        """Whether a weight is the base with these updates, and nothing else has changed it.

        Args:
            weight: As it is now.
        """
        total, base = self.total, self.base
        if weight.shape != base.shape or weight.dtype != base.dtype:
            return False
        return fingerprint(weight) == self.fingerprint if total is None else is_sum(whole(weight), base, total)

    def write(self, weight: Tensor) -> None:
        """Writes cast(base + sum) into the weight.

        Args:
            weight: Changed in place.
        """
        write_level(weight, self.base, self.total)


def total_of(parts: Mapping[str, Factors]) -> Factors | None:
    """The sum of some updates in their order, None of none.

    Args:
        parts: Their factors.
    """
    total: Factors | None = None
    for factors in parts.values():
        total = factors if total is None else add_factors(on(total, factors.left.device), factors)
    return total


def on(factors: Factors, device: torch.device) -> Factors:
    """Factors on a device.

    Args:
        factors: The update.
        device: Where it is to be.
    """
    return Factors(factors.left.to(device), None if factors.right is None else factors.right.to(device))


def same_numbers(first: Factors, second: Factors) -> bool:
    """Whether two updates are one to the last bit, on whatever devices.

    Args:
        first: An update.
        second: Another.
    """
    if (first.right is None) != (second.right is None) or first.left.shape != second.left.shape:
        return False
    second = on(second, first.left.device)
    same = first.right is None or second.right is None or torch.equal(first.right, second.right)
    return same and torch.equal(first.left, second.left)


@torch.no_grad()
def write_level(weight: Tensor, base: Tensor, total: Factors | None) -> None:
    """Writes cast(base + sum) into a weight, without a sum the base's own bits.

    Args:
        weight: Changed in place.
        base: Of the same shape, on any device.
        total: What is added to it.
    """
    if total is None:
        weight.copy_(base)
    else:
        write_weight(weight, base.to(weight.device), on(total, weight.device))


class Levels:
    """The levels of one weight, the lowest first; the uppermost is what updates go into and come out of.

    There is more than one where a weight that held updates was changed by something else before it was edited again.
    A copy of the model has levels of its own. A pickled model has none: to know what it holds takes no library.
    """

    def __init__(self) -> None:
        self.stack: list[Level] = []

    def __deepcopy__(self, memo: dict[int, Any]) -> "Levels":
        copied = Levels()
        copied.stack = deepcopy(self.stack, memo)
        return copied

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()

    @property
    def top(self) -> Level | None:
        """The uppermost level."""
        return self.stack[-1] if self.stack else None

    def has(self, identity: str) -> bool:
        """Whether an update is in any level."""
        return any(identity in level.parts for level in self.stack)

    def joined(self, base: str, weight: Tensor) -> Level | None:
        """The uppermost level if it is one of updates of that base and holds the weight as it is.

        Args:
            base: The fingerprint of a base.
            weight: As it is now.
        """
        top = self.top
        return top if top is not None and top.fingerprint == base and top.holds(weight) else None

    def forget_undone(self, weight: Tensor) -> None:
        """Forgets the updates of a weight that was given back its base by other means, such as a state dict.

        Args:
            weight: As it is now.
        """
        while (top := self.top) is not None and not top.holds(weight):
            if top.parts and fingerprint(weight) != top.fingerprint:
                return
            self.stack.pop()

    def push(self, base: Tensor, name: str) -> Level:
        """A new level above the others, for a weight as it is.

        Args:
            base: A copy of the weight.
            name: Its fingerprint.
        """
        self.stack.append(Level(base, name))
        return self.stack[-1]

    def take_out(self, identity: str, weight: Tensor) -> None:
        """Takes an update out of the uppermost level, and that away when it was the last.

        Args:
            identity: Of the update.
            weight: Changed in place.
        """
        level = self.stack[-1]
        del level.parts[identity]
        level.write(weight)
        if not level.parts:
            self.stack.pop()


def levels_of(module: nn.Module) -> Levels:
    """The levels of a module's weight, kept in the module from here on.

    Args:
        module: A site's module.
    """
    levels = getattr(module, ATTRIBUTE, None)
    if not isinstance(levels, Levels):
        levels = Levels()
        setattr(module, ATTRIBUTE, levels)
    return levels


def edited_modules(model: Any) -> dict[str, tuple[nn.Module, Levels]]:
    """The modules of a model that hold updates, by name.

    Args:
        model: The model.
    """
    found = {name: (module, getattr(module, ATTRIBUTE, None)) for name, module in model.named_modules()}
    return {
        name: (module, levels)
        for name, (module, levels) in found.items()
        if isinstance(levels, Levels) and levels.stack
    }


def weight_of(module: nn.Module) -> Tensor:
    """The weight of a site, a view that can be written."""
    return oriented_weight(module).detach()
