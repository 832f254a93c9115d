"""From edits that have values to updates in the weights: each is kept as a whole, or undone as a whole."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from lightning_edit.errors import EditError
from lightning_edit.loop.edit_queue import EditQueue
from lightning_edit.loop.independent_updates import IndependentUpdates
from lightning_edit.loop.on_top_of import earlier_edits
from lightning_edit.loop.replaced_edits import release_replaced
from lightning_edit.loop.run_state import RunState
from lightning_edit.loop.writer import Writer
from lightning_edit.progress import Report, silent
from lightning_edit.requests import EditRequest, replaced_by
from lightning_edit.solvers import Factors
from lightning_edit.storage.cache import Cache
from lightning_edit.updates.edited_weights import EditedWeights
from lightning_edit.updates.history import History
from lightning_edit.updates.written import Written


@dataclass(frozen=True)
class LastUpdate:
    """The update that callbacks may look at.

    Args:
        number: Counted from 1.
        requests: Its edits.
        written: What was added to the weights, with which keys.
        seconds: What its values and its solution took.
        positions: Where its edits are among those of the run.
    """

    number: int
    requests: list[EditRequest]
    written: Written
    seconds: float = 0.0
    positions: Sequence[int] = ()

    @property
    def figures(self) -> dict[str, float]:
        """Norms, errors and condition numbers of each layer; see `Editor.write`."""
        return self.written.figures


class UpdateLoop:
    """The updates of one run: what waits, what is written, and from where a stopped run goes on.

    It knows neither trainer nor callbacks; an editing module says when things happen.

    Args:
        queue: The edits in their order, from their values to their update.
        independent: Whether each update starts from the unedited model.

    Attributes:
        weights: The edited weights, once the model is loaded.
        editor: Writes the updates, once the fit has prepared what it needs.
        kept: Where a run that is stopped goes on.
        last_update: The one that was written last; None before the first, or if it was undone.
        stopped: Why no more edits are made; None while all is well.
        history: Where this run's updates can be looked up, if they are kept.
        earlier_histories: The same for the runs it is built upon, the latest first.
        value_caches: Where value vectors are looked up and kept.
        left_out: Names of the edits that were not written although it was their turn.
        post_processed: Whether the sum of all updates was changed after the last one.
        was_finished: Whether the run had written all its edits before it was resumed.
        built_upon: For each edited layer what earlier runs have added to it.
        value_losses: See `RunState`.
    """

    weights: EditedWeights

    def __init__(self, queue: EditQueue, independent: bool = False) -> None:
        self.queue, self.independent = queue, independent
        self.editor: Writer | None = None
        self.kept = RunState()
        self.last_update: LastUpdate | None = None
        self.stopped: str | None = None
        self.history: History | None = None
        self.earlier_histories: list[History] = []
        self.value_caches: list[Cache] = []
        self.left_out: list[str] = []
        self.edits_written = self.updates_written = self.micro_batches = self.passes = 0
        self.post_processed = self.was_finished = False
        self.built_upon: dict[int, Factors] = {}
        self.value_losses: dict[int, float] = {}
        self._independent_updates = IndependentUpdates()
        self._looked_at: Sequence[EditRequest] | None = None
        self._replaces = False

    # -- where a run begins --------------------------------------------------------------------------------------------

    def build_upon(self, checkpoint: str, model: str, previous_keys: bool) -> None:
        """Starts from the edits of an earlier run.

        Args:
            checkpoint: That of the earlier run.
            model: The name of the model of this one.
            previous_keys: Whether C_p is wanted.

        Raises:
            EditError: See `earlier_edits`.
        """
        self.kept, histories = earlier_edits(checkpoint, self.weights, model, previous_keys)
        self.earlier_histories += histories
        self.built_upon = dict(self.kept.added)
        self.weights.set(self.built_upon)

    def restore(self, state: RunState, requests: Sequence[EditRequest]) -> None:
        """Goes on where a checkpoint was written.

        Args:
            state: That of the run.
            requests: All edits of the run.

        Raises:
            EditError: If independent updates are not there any more.
        """
        self.kept, self.stopped, self.was_finished = state, state.stopped, state.finished
        if self.independent and state.updates_written:
            if self.history is None:
                raise EditError(
                    "Independent updates are kept in the run's updates/ alone, which a fit with EditCheckpoint reads; "
                    "this checkpoint holds no edited weights."
                )
            written = [position for position in range(state.offered + state.taken) if position not in state.left_out]
            edits = [requests[position] for position in written[: state.edits_written]]
            self._independent_updates.load(self.history, state.updates_written, edits)
        self.return_to_kept()

    # -- one update ----------------------------------------------------------------------------------------------------

    def write(self, requests: Sequence[EditRequest], report: Report = silent) -> LastUpdate:
        """Writes the edits that wait as one update, which `keep` makes final and `undo` takes back.

        Args:
            requests: All edits of the run.
            report: Told how far the editor's source is, if it has one.
        """
        assert self.editor is not None
        positions, z = self.queue.take(requests)
        edits = [requests[position] for position in positions]
        release_replaced(self.editor, self._histories(requests), edits)
        written = self.editor.write(edits, z, report=report)
        self.queue.leave_out([positions[place] for place in written.left_out])
        positions = [position for position in positions if position not in self.queue.left_out]
        edits = [requests[position] for position in positions]
        if self.independent:
            self.editor.statistics = self.kept.statistics
        self.edits_written += len(edits)
        self.updates_written += 1
        self.last_update = LastUpdate(self.updates_written, edits, written, positions=positions)
        return self.last_update

    def refuse(self, reason: str) -> None:
        """Called in `EditCallback.on_edits_written`: the update did harm, it is to be undone, and the fit to end there.

        Args:
            reason: What a user should read.
        """
        self.stopped = reason

    def undo(self) -> None:
        """Takes the last update, which was refused, out of the weights again."""
        self.last_update = None
        self.return_to_kept()
        self.kept = replace(self.kept, stopped=self.stopped)

    def keep(
        self,
        requests: Sequence[EditRequest],
        seconds: dict[str, float],
        curves: Sequence[dict[str, Any]],
        finished: bool = False,
    ) -> None:
        """From here on a run that is stopped goes on from what is now.

        Args:
            requests: All edits of the run.
            seconds: Time spent on each stage.
            curves: What was measured on the way.
            finished: Whether all edits are written and post-processed.
        """
        assert self.editor is not None
        self.left_out = [requests[position].name for position in self.queue.left_out]
        self.kept = RunState(
            offered=self.queue.offered,
            taken=self.queue.taken,
            micro_batches=self.micro_batches,
            passes=self.passes,
            edits_written=self.edits_written,
            updates_written=self.updates_written,
            finished=finished,
            stopped=self.stopped,
            left_out=dict(self.queue.left_out),
            added=dict(self.weights.added),
            previous_keys=dict(self.editor.previous_keys or {}),
            statistics=dict(self.editor.statistics),
            anchored=dict(self.editor.anchored),
            pending=list(self.queue.pending),
            seconds=dict(seconds),
            curves=list(curves),
            value_losses=dict(self.value_losses),
        )

    def set_aside(self) -> None:
        """Takes an independent update out of the weights again; it is measured by itself later."""
        if self.independent and self.last_update is not None:
            self._independent_updates.keep(self.last_update.requests, self.weights)

    def return_to_kept(self) -> None:
        """Forgets what was begun since the last update that was kept."""
        state = self.kept
        self.queue.restore(state)
        self.micro_batches, self.passes = state.micro_batches, state.passes
        self.edits_written, self.updates_written = state.edits_written, state.updates_written
        self.value_losses = dict(state.value_losses)
        self.weights.set(state.added)
        if self.editor is not None:
            self.editor.statistics, self.editor.anchored = state.statistics, state.anchored
            if self.editor.previous_keys is not None:
                self.editor.previous_keys = state.previous_keys

    def finish(self) -> None:
        """Post-processes the sum of all updates; what that adds counts as an update without edits."""
        assert self.editor is not None
        added = self.editor.finish()
        self.post_processed = bool(added)
        if added:
            self.last_update = LastUpdate(self.updates_written + 1, [], Written(added))

    # -- looking at the model in between -------------------------------------------------------------------------------

    @contextmanager
    def before_run(self) -> Iterator[None]:
        """The model as the run found it, inside a ``with`` block."""
        with self.weights.restored():
            self.weights.set(self.built_upon)
            yield

    def _histories(self, requests: Sequence[EditRequest]) -> list[History]:
        """Where edits that may be replaced can be looked up, the latest run first."""
        if self._looked_at is not requests:
            self._looked_at, self._replaces = requests, bool(replaced_by(requests))
        # Of a long run the index of all its edits is large, and of no use where none replaces another.
        own = self.history if self._replaces else None
        return [*([] if own is None else [own]), *self.earlier_histories]

    @contextmanager
    def edits_so_far(self, requests: Sequence[EditRequest]) -> Iterator[None]:
        """The model with all edits so far: those that wait are solved for the time of the ``with`` block.

        Args:
            requests: All edits of the run.
        """
        if not self.queue.waiting:
            yield
            return
        assert self.editor is not None
        editor = self.editor
        before = editor.previous_keys, editor.statistics, editor.anchored
        try:
            with self.weights.restored():
                positions, z = self.queue.together_now(requests)
                edits = [requests[position] for position in positions]
                release_replaced(self.editor, self._histories(requests), edits, announced=False)
                self.editor.write(edits, z, measured=False)
                yield
        finally:
            editor.previous_keys, editor.statistics, editor.anchored = before

    def written_together(self, requests: Sequence[EditRequest]) -> list[Sequence[EditRequest]]:
        """The requests in parts that are measured on the same weights, in their order.

        Args:
            requests: Records to measure.
        """
        return self._independent_updates.split(requests) if self.independent else [requests]

    def facts_with(self, requests: Sequence[EditRequest]) -> frozenset[tuple[str, str]] | None:
        """What the edits are about that are in the model on which requests are measured; None for all of the run.

        Args:
            requests: A part as `written_together` makes it.
        """
        return self._independent_updates.facts_with(requests) if self.independent else None

    @contextmanager
    def as_edited(self, requests: Sequence[EditRequest]) -> Iterator[None]:
        """The weights on which requests that were written together are measured, inside a ``with`` block.

        Args:
            requests: A part as `written_together` makes it.
        """
        with self._independent_updates.inserted(requests, self.weights) if self.independent else nullcontext():
            yield
