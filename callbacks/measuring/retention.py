"""How much of what was written earlier is still there."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from lightning_edit.callbacks.measuring.scheduled import Scheduled
from lightning_edit.errors import EditError
from lightning_edit.messages import terminal
from lightning_edit.metrics import EditMetrics, evaluate
from lightning_edit.metrics.settings import TEACHER_FORCED
from lightning_edit.requests import EditRequest, repeated, replaced_by
from lightning_edit.run.edit_callback import EditingRun
from lightning_edit.settings import Count, Seed
from lightning_edit.without_effect import refuse_given

NAME = "retention/efficacy_score"


class Retention(Scheduled):
    """Measures earlier edits again in the middle of a run: what later edits have done to them.

    Figures are those of `EditMetrics` as ``retention/efficacy_score`` and so on, over all edits written so far. An edit
    that a later one of the same subject and prompt has replaced by then is not among them: it is not forgotten.

    Args:
        sample: Largest number of earlier edits measured; None for all.
        seed: Which ones; the same seed draws the same sample of the same edits.
        every_n_updates: Measure after this many updates; None and None measures nothing.
        every_n_micro_batches: Measure after this many micro-batches of edits.

    Raises:
        EditError: If there is a sample or seed, and nothing is measured.
    """

    def __init__(
        self,
        sample: Count | None = 100,
        seed: Seed = 0,
        every_n_updates: Count | None = None,
        every_n_micro_batches: Count | None = None,
    ) -> None:
        super().__init__(every_n_updates, every_n_micro_batches, before=False)
        self.sample, self.seed, self._samples = sample, seed, Samples(seed)
        if not self.active:
            remedy = "Set `retention.every_n_updates` to a number"
            refuse_given(self, {"sample": sample, "seed": seed}, "`retention.every_n_updates: null`", remedy)

    @property
    def active(self) -> bool:
        """Whether a cadence is set."""
        return self.every_n_updates is not None or self.every_n_micro_batches is not None

    def check(self, trainer: Any, module: EditingRun) -> None:
        """Refuses a run in which there is nothing to retain.

        Raises:
            EditError: If every update starts from the unedited model.
        """
        if module.loop.independent:
            raise EditError(
                "Retention: with `independent_updates` no update sees the earlier ones, so there is nothing to "
                "measure. Set `retention.every_n_updates` to null."
            )

    def measure(self, trainer: Any, module: EditingRun) -> dict[str, float]:
        """Figures over the edits written so far, or the sample of them."""
        chosen = self._samples.among(module.requests).draw(valid_positions(module), self.sample)
        if not chosen:
            return {}
        metrics = EditMetrics(sync_on_compute=False)
        evaluate(module.decoder, module.tokenizer, chosen, metrics, TEACHER_FORCED)
        return {f"retention/{name}": float(value) for name, value in metrics.compute().items()}

    def on_test_end(self, trainer: Any, pl_module: EditingRun) -> None:
        """Shows how much of the earlier edits is still there."""
        super().on_test_end(trainer, pl_module)
        measured = [line for line in pl_module.curves if NAME in line["figures"]]
        if pl_module.loop.edits_written and measured and trainer.is_global_zero:
            course = ", ".join(f"{100 * line['figures'][NAME]:.1f} after {line['edits']}" for line in measured[-5:])
            unit = "edit" if measured[-1]["edits"] == 1 else "edits"
            terminal().print(f"retained efficacy score, in %: {course} {unit}", soft_wrap=True)


def valid_positions(module: EditingRun) -> Sequence[int]:
    """Where the edits are that the model should know by now: all so far but those that a later one has replaced.

    Args:
        module: The module under way.
    """
    data, so_far = module.trainer.datamodule, module.positions_so_far
    if len(data.measured) == len(data.requests):
        return so_far
    requests = module.requests
    replaced = replaced_by([requests[position] for position in so_far])
    return [position for place, position in enumerate(so_far) if place not in replaced]


class Order:
    """The order in which samples of a run's edits are drawn, once for all of them: a sample changes little with them.

    Args:
        among: All edits of the run.
        seed: Of the order.
    """

    def __init__(self, among: Sequence[EditRequest], seed: int) -> None:
        self._among, first = among, _first_equal(among)
        order = [position for position in range(len(among)) if first.get(position, position) == position]
        random.Random(seed).shuffle(order)
        # Numbers, and no objects: long runs have very many, and ask after every update.
        self._order = np.array(order, dtype=np.int64)
        self._places = np.empty(len(among), dtype=np.int64)
        self._places[self._order] = np.arange(len(order))
        for position, earlier in first.items():
            self._places[position] = self._places[earlier]

    def of(self, among: Sequence[EditRequest]) -> bool:
        """Whether it is the order of these edits."""
        return among is self._among

    def draw(self, positions: Sequence[int], count: int | None, exclude: Sequence[int] = ()) -> list[EditRequest]:
        """A sample.

        Args:
            positions: Those to choose from, among all edits of the run.
            count: At most so many; None for all.
            exclude: The positions of those not to choose.
        """
        places = self._places_of(positions)
        if len(exclude):
            places = places[~np.isin(places, self._places_of(exclude))]
        if count is not None:
            # Of equal edits all have the same place.
            most = count + len(self._places) - len(self._order)
            places = np.partition(places, most)[:most] if most < len(places) else places
        chosen = self._order[np.unique(places)[:count]]
        return [self._among[position] for position in chosen.tolist()]

    def _places_of(self, positions: Sequence[int]) -> Any:
        if isinstance(positions, range):
            return self._places[positions.start : positions.stop : positions.step]
        return self._places[np.array(positions, dtype=np.int64)]


def _first_equal(requests: Sequence[EditRequest]) -> dict[int, int]:
    """For each request that is equal to an earlier one the position of the first of them."""
    first: dict[EditRequest, int] = {}
    return {
        position: earlier
        for position in repeated(requests)
        if (earlier := first.setdefault(requests[position], position)) != position
    }


class Samples:
    """Draws samples of the edits of whichever run is under way.

    Args:
        seed: See `Order`.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._order: Order | None = None

    def among(self, requests: Sequence[EditRequest]) -> Order:
        """The order of the edits of a run.

        Args:
            requests: All of them.
        """
        if self._order is None or not self._order.of(requests):
            self._order = Order(requests, self.seed)
        return self._order
