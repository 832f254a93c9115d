"""What a model answers with beside its weights, noted on its module: the model is not the plain one then."""

from collections.abc import Iterator
from typing import Protocol

from torch import nn

from lightning_edit.errors import EditError

ATTRIBUTE = "lightning_edit_beside"


class BesideWeights(Protocol):
    """Something that changes what a module gives, while its weight stays as it is."""

    @property
    def answers(self) -> bool:
        """Whether it changes anything now."""

    def fingerprint(self) -> str:
        """The hash of all that decides what it changes."""


def note_beside(module: nn.Module, beside: BesideWeights) -> None:
    """Notes on a module what is beside its weight. A copy of the model has a copy of it.

    Args:
        module: The module.
        beside: What was put there; it takes the place of what was noted before.
    """
    setattr(module, ATTRIBUTE, beside)


def forget_beside(module: nn.Module) -> None:
    """Notes that nothing is beside a weight any more.

    Args:
        module: The module, which `note_beside` was given.
    """
    delattr(module, ATTRIBUTE)


def answers_beside(model: nn.Module) -> Iterator[str]:
    """What tells a model from one with the same weights: where something answers beside them, and its hash.

    Args:
        model: The model.

    Yields:
        Nothing for a model that answers with its weights alone.
    """
    for name, beside in _all_beside(model):
        if beside.answers:
            yield from ("beside", name, beside.fingerprint())


def refuse_beside(model: nn.Module) -> None:
    """Refuses a model with something beside its weights, which fits no others.

    Args:
        model: The model.

    Raises:
        EditError: Says what is there, and how it is taken off.
    """
    for _, beside in _all_beside(model):
        raise EditError(
            f"The model carries edits beside its weights, {beside!r}, which hold only on the model that they were made "
            "for. Take them off first: `memories.take_off()`, where `memories` is what `load_memories` returned."
        )


def _all_beside(model: nn.Module) -> Iterator[tuple[str, BesideWeights]]:
    for name, module in model.named_modules():
        if (beside := getattr(module, ATTRIBUTE, None)) is not None:
            yield name, beside
