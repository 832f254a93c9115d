"""The weights of a run that changes none: what makes it edited is the memory beside them."""

from collections.abc import Iterator
from contextlib import contextmanager

from lightning_edit.memories.wrapped import Memories
from lightning_edit.solvers import Factors
from lightning_edit.updates.edited_weights import EditedWeights


class MemoryWeights(EditedWeights):
    """Looks like edited weights to whoever compares the model with what it was: the memory is paused and goes on.

    Attributes:
        memories: What the model remembers; None while it is loaded.
    """

    memories: Memories | None = None

    def set(self, added: dict[int, Factors]) -> None:
        """Pauses the memory, as no weight has anything added."""
        super().set(added)
        if self.memories is not None:
            self.memories.active = False

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Lets the memory be as it was at the start of the block, error or not."""
        before = self.memories is not None and self.memories.active
        try:
            with super().restored():
                yield
        finally:
            if self.memories is not None:
                self.memories.active = before
