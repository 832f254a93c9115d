"""Updates that each start from the unedited model: the protocol of the papers' tables over batch sizes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby

from lightning_edit.requests import EditRequest, fact_of
from lightning_edit.solvers import Factors
from lightning_edit.updates.edited_weights import EditedWeights
from lightning_edit.updates.history import History


class IndependentUpdates:
    """Which edits were written together, and what was added to the weights for them."""

    def __init__(self) -> None:
        self._updates: list[dict[int, Factors]] = []
        self._update_of: dict[EditRequest, int] = {}
        self._facts: list[frozenset[tuple[str, str]]] = []

    def keep(self, requests: Sequence[EditRequest], weights: EditedWeights) -> None:
        """Takes an update out of the weights again, and remembers it.

        Args:
            requests: The edits of the update.
            weights: The edited weights; they are the base weights afterwards.
        """
        self._note(requests)
        self._updates.append(weights.take())

    def load(self, history: History, updates: int, requests: Sequence[EditRequest]) -> None:
        """Brings back what a run that goes on had written.

        Args:
            history: Where each of its updates is kept.
            updates: How many it had written.
            requests: The edits of these updates, in their order.

        Raises:
            EditError: If an update is not there or is damaged.
        """
        self._updates, self._update_of, self._facts, start = [], {}, [], 0
        for number in range(1, updates + 1):
            stored = history.read(number)
            end = start + len(stored.record.edits)
            self._note(requests[start:end])
            self._updates.append({layer: update.factors for layer, update in stored.updates.items()})
            start = end

    def _note(self, requests: Sequence[EditRequest]) -> None:
        self._update_of |= dict.fromkeys(requests, len(self._updates))
        self._facts.append(frozenset(map(fact_of, requests)))

    def facts_with(self, requests: Sequence[EditRequest]) -> frozenset[tuple[str, str]]:
        """What the edits are about that were written together with some, see `fact_of`.

        Args:
            requests: A part as `split` makes it.
        """
        number = self._update_of.get(requests[0])
        return frozenset() if number is None else self._facts[number]

    def split(self, requests: Sequence[EditRequest]) -> list[Sequence[EditRequest]]:
        """The requests in parts that were written together; those in no update are a part of their own.

        Args:
            requests: Records to measure, in order.
        """
        return [list(part) for _, part in groupby(requests, key=self._update_of.get)]

    @contextmanager
    def inserted(self, requests: Sequence[EditRequest], weights: EditedWeights) -> Iterator[None]:
        """The weights with the update of the requests in them, inside a ``with`` block.

        Args:
            requests: A part as `split` makes it.
            weights: The weights, at base.
        """
        number = self._update_of.get(requests[0])
        if number is None:
            yield
            return
        with weights.restored():
            for layer, factors in self._updates[number].items():
                weights.add(layer, factors)
            yield
