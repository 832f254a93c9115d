"""A memory on a model: put on, paused, and taken off, while no weight changes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils.hooks import RemovableHandle

from lightning_edit.memories.memory import Memory
from lightning_edit.models.hooks import hidden_of, with_hidden


class Memories:
    """Edits that a model has beside one of its layers; `load_memories` makes one from a run's folder.

    Args:
        model: A transformers model; its weights are not touched.
        module: The name of the down-projection.
        memory: The edits.

    Attributes:
        active: Whether the model answers with the edits.

    Example:
        >>> memories = load_memories("runs/lightning_logs/version_0/memories", model)  # doctest: +SKIP
        >>> memories.remove(0)  # doctest: +SKIP
        >>> memories.take_off()  # doctest: +SKIP
    """

    def __init__(self, model: Any, module: str, memory: Memory) -> None:
        self.model, self.module, self.memory, self.active = model, module, memory, True
        self._handle: RemovableHandle | None = None
        self.put_on()

    def __len__(self) -> int:
        """How many edits."""
        return len(self.memory.entries)

    def __repr__(self) -> str:
        """What it is, without its numbers."""
        return f"{type(self).__name__}({self.memory.kind}, {len(self)} edits, {self.module})"

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
        """Lets the model answer with the edits."""
        if self._handle is None:
            self._handle = self.model.get_submodule(self.module).register_forward_hook(self._hook)

    def take_off(self) -> None:
        """Gives back the model as it was before, bit for bit; `put_on` undoes that."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

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
