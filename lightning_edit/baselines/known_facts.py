"""The weights of a baseline that changes none: what makes it edited are the facts that it knows."""

from collections.abc import Iterator
from contextlib import contextmanager

from lightning_edit.baselines.facts import Facts
from lightning_edit.solvers import Factors
from lightning_edit.updates.edited_weights import EditedWeights


class KnownFacts(EditedWeights):
    """Looks like edited weights to whoever compares the model with what it was: facts are taken away and come back.

    Attributes:
        facts: What stands before prompts; None while the model is loaded.
    """

    facts: Facts | None = None

    def set(self, added: dict[int, Factors]) -> None:
        """Forgets all facts, as no weight has anything added."""
        super().set(added)
        if self.facts is not None:
            self.facts.known = ()

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Gives back the facts as they were at the start of the block, error or not."""
        known = () if self.facts is None else self.facts.known
        try:
            with super().restored():
                yield
        finally:
            if self.facts is not None:
                self.facts.known = known
