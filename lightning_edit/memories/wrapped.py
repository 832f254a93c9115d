"""A memory on a model: put on, paused, and taken off, while no weight changes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from lightning_edit.errors import EditError
from lightning_edit.loading.fingerprints import check_sample, sample_of
from lightning_edit.memories.entries import tensors_of
from lightning_edit.memories.memory import Memory
from lightning_edit.models.beside_weights import forget_beside, note_beside, refuse_beside
from lightning_edit.models.finding.sites import oriented_weight
from lightning_edit.models.hooks import hidden_of, with_hidden
from lightning_edit.storage.fingerprint import fingerprint
from lightning_edit.storage.numbers import to_json
from lightning_edit.storage.tensor_form import checksum


@dataclass(frozen=True)
class MadeFor:
    """The model that the edits of a memory were learned on, without them.

    Args:
        module: The name of the down-projection that they are beside.
        base: The fingerprint of its weight.
        sample: `sample_of` the model; None where that was not noted.
        model: Its name, if it is known.
    """

    module: str
    base: str
    sample: str | None = None
    model: str | None = None

    def check(self, model: Any) -> None:
        """Refuses another model, on which the edits would not answer as they were learned.

        Args:
            model: A transformers model without memories, which has the module.

        Raises:
            EditError: If the weight of the module, or any other weight, is not what it was.
        """
        if fingerprint(oriented_weight(model.get_submodule(self.module))) != self.base:
            made_for = "" if self.model is None else f" ({self.model})"
            raise EditError(
                f"{self.module} holds other weights than these edits were made for{made_for}. Load that model, in the "
                "same precision and without other edits."
            )
        check_sample(self.sample, sample_of(model), self.model or "The model")


class Memories:
    """Edits that a model has beside one of its layers; `load_memories` makes one from a run's folder.

    Args:
        model: A transformers model; its weights are not touched.
        made_for: What it must be, and the name of the down-projection.
        memory: The edits.

    Attributes:
        active: Whether the model answers with the edits.

    Raises:
        EditError: See `put_on`.

    Example:
        >>> memories = load_memories("runs/lightning_logs/version_0/memories", model)  # doctest: +SKIP
        >>> memories.remove(0)  # doctest: +SKIP
        >>> memories.take_off()  # doctest: +SKIP
    """

    def __init__(self, model: Any, made_for: MadeFor, memory: Memory) -> None:
        self.model, self.made_for, self.memory, self.active = model, made_for, memory, True
        # The module itself, which may have another name by the time that it is taken off.
        self._on: tuple[nn.Module, RemovableHandle] | None = None
        self.put_on()

    def __len__(self) -> int:
        """How many edits."""
        return len(self.memory.entries)

    def __repr__(self) -> str:
        """What it is, without its numbers."""
        return f"{type(self).__name__}({self.memory.kind}, {len(self)} edits, {self.module})"

    @property
    def module(self) -> str:
        """The name of the down-projection."""
        return self.made_for.module

    @property
    def answers(self) -> bool:
        """Whether the model answers otherwise than without the memory."""
        return self.active and len(self) > 0

    def fingerprint(self) -> str:
        """The hash of the edits: what was learned of each, and what decides where it holds."""
        memory = self.memory
        labels = to_json([entry.label for entry in memory.entries])
        return fingerprint(memory.kind, to_json(memory.settings()), labels, checksum(tensors_of(memory), {}))

    @property
    def edits(self) -> list[str]:
        """The names of the edits, in the order in which they were made."""
        return [entry.name for entry in self.memory.entries]

    def remove(self, edit: int) -> None:
        """Takes one edit out, as if it had never been made.

        Args:
            edit: Its place in `edits`.

        Raises:
            EditError: If there is no such edit.
        """
        self.memory.remove(edit)

    def put_on(self) -> None:
        """Lets the model answer with the edits.

        Raises:
            EditError: If it has memories on it, or is not the model that they were made for.
        """
        if self._on is None:
            refuse_beside(self.model)
            self.made_for.check(self.model)
            module = self.model.get_submodule(self.module)
            self._on = module, module.register_forward_hook(self._hook)
            note_beside(module, self)

    def take_off(self) -> None:
        """Gives back the model as it was before, bit for bit; `put_on` undoes that."""
        if self._on is not None:
            module, handle = self._on
            handle.remove()
            forget_beside(module)
            self._on = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The model without edits, inside a ``with`` block."""
        before, self.active = self.active, False
        try:
            yield
        finally:
            self.active = before

    def _hook(self, _: Any, args: tuple[Any, ...], output: Any) -> Any:
        if not self.active:
            return output
        return with_hidden(output, self.memory.change(args[0], hidden_of(output)))
