"""What all memories have in common: edits in their order, and an answer for each token that follows from them alone."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_edit.errors import EditError


@dataclass(frozen=True)
class Entry:
    """One edit as a memory keeps it.

    Args:
        name: How messages call it.
        label: The new answer; GRACE compares those of edits that are close to each other.
        tensors: What was learned; each kind of memory says what it needs, see `Memory.form`.
    """

    name: str
    label: str
    tensors: Mapping[str, Tensor]


class Memory(ABC):
    """Changes what a down-projection gives for the tokens that a stored edit claims, and no other.

    Whether a token is one of them is decided by its own activation. So it does not matter how a text reaches the model:
    token by token with a cache of keys and values, in a padded batch, or as a whole with its answer.

    Attributes:
        kind: Its name in files.
        form: For each tensor of an entry its shape in words, ``d_in`` and ``d_out`` among them.
        common: The tensors ``(d_in,)`` that its constructor takes.
        entries: The edits. All else follows from them, so a memory without one of them is what it would have been had
            that edit never been made.
    """

    kind: ClassVar[str]
    form: ClassVar[Mapping[str, tuple[str, ...]]]
    common: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._placed: tuple[torch.device, tuple[Tensor, ...]] | None = None

    def add(self, entries: Iterable[Entry]) -> None:
        """Takes edits up.

        Args:
            entries: In the order in which they are made.
        """
        for entry in entries:
            self.entries.append(entry)
            self._take(entry)
        self._placed = None

    def remove(self, place: int) -> None:
        """Takes one edit out again.

        Args:
            place: Its place among `entries`.

        Raises:
            EditError: If there is no such edit.
        """
        if not 0 <= place < len(self.entries):
            raise EditError(f"There is no edit {place}: the memory holds {len(self.entries)}, counted from 0.")
        self._begin_with(self.entries[:place] + self.entries[place + 1 :])

    def forget_after(self, count: int) -> None:
        """Takes out all edits but the first ones.

        Args:
            count: How many stay.
        """
        if count < len(self.entries):
            self._begin_with(self.entries[:count])

    def _begin_with(self, entries: list[Entry]) -> None:
        self.entries = []
        self._clear()
        self._placed = None
        self.add(entries)

    def change(self, keys: Tensor, output: Tensor) -> Tensor:
        """What the down-projection gives with the edits.

        Args:
            keys: ``(..., d_in)``, what enters it.
            output: ``(..., d_out)``, what leaves it.

        Returns:
            ``(..., d_out)`` in the precision of ``output``.
        """
        if not self.entries:
            return output
        if self._placed is None or self._placed[0] != keys.device:
            self._placed = keys.device, tuple(tensor.to(keys.device) for tensor in self._tables())
        flat = keys.reshape(-1, keys.shape[-1])
        changed = self._change(flat, output.reshape(-1, output.shape[-1]), *self._placed[1])
        return changed.to(output.dtype).view_as(output)

    def settings(self) -> dict[str, Any]:
        """The numbers that its constructor takes."""
        return {}

    def shared(self) -> dict[str, Tensor]:
        """The tensors that its constructor takes."""
        return {}

    @abstractmethod
    def _clear(self) -> None:
        """Forgets all that was taken up."""

    @abstractmethod
    def _take(self, entry: Entry) -> None:
        """Takes one more edit up."""

    @abstractmethod
    def _tables(self) -> tuple[Tensor, ...]:
        """What `_change` reads, made when it is first needed after a change."""

    @abstractmethod
    def _change(self, keys: Tensor, output: Tensor, *tables: Tensor) -> Tensor:
        """As `change`, for keys ``(tokens, d_in)`` and outputs ``(tokens, d_out)``."""
