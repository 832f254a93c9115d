"""How much of what was written earlier is still there."""

import heapq
import random
from collections.abc import Iterable, Sequence
from typing import Any

from lightning_edit.callbacks.scheduled import Scheduled
from lightning_edit.errors import EditError
from lightning_edit.messages import terminal
from lightning_edit.metrics import EditMetrics, evaluate
from lightning_edit.metrics.settings import TEACHER_FORCED
from lightning_edit.requests import EditRequest, still_valid
from lightning_edit.run.edit_callback import EditingRun
from lightning_edit.settings import Count, Seed

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
        chosen = self._samples.among(module.requests).draw(valid_edits(module), self.sample)
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


def valid_edits(module: EditingRun) -> list[EditRequest]:
    """The edits that the model should know by now: all so far but those that a later one has replaced.

    Args:
        module: The module under way.
    """
    data, so_far = module.trainer.datamodule, module.requests_so_far
    return so_far if len(data.measured) == len(data.requests) else still_valid(so_far)


class Order:
    """The order in which samples of a run's edits are drawn, once for all of them: a sample changes little with them.

    Args:
        among: All edits of the run.
        seed: Of the order.
    """

    def __init__(self, among: Sequence[EditRequest], seed: int) -> None:
        self._among, self._order = among, list(dict.fromkeys(among))
        random.Random(seed).shuffle(self._order)
        place = {request: index for index, request in enumerate(self._order)}
        # Long runs ask again and again, and comparing edits text by text takes long.
        self._places = {id(request): place[request] for request in among}

    def of(self, among: Sequence[EditRequest]) -> bool:
        """Whether it is the order of these edits."""
        return among is self._among

    def draw(
        self, requests: Iterable[EditRequest], count: int | None, without: Iterable[EditRequest] = ()
    ) -> list[EditRequest]:
        """A sample.

        Args:
            requests: Those to choose from, of the run's own.
            count: At most so many; None for all.
            without: Those not to choose.
        """
        places = {self._places[id(request)] for request in requests}
        places -= {self._places[id(request)] for request in without}
        chosen = sorted(places) if count is None else heapq.nsmallest(count, places)
        return [self._order[place] for place in chosen]


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
