"""The module under all methods that write updates: an update is written, looked at, and kept or undone as a whole."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

from lightning.pytorch.utilities import rank_zero_warn

from lightning_edit.editor import Editor, Written
from lightning_edit.errors import EditError
from lightning_edit.keys.context_templates import ContextTemplates
from lightning_edit.requests import EditRequest
from lightning_edit.run.edit_callback import LastUpdate, tell
from lightning_edit.run.edit_queue import EditQueue
from lightning_edit.run.independent_updates import IndependentUpdates
from lightning_edit.run.measured_module import MeasuredModule
from lightning_edit.run.replaced_edits import release_replaced
from lightning_edit.run.run_state import RunState
from lightning_edit.solvers import Factors
from lightning_edit.updates.history import History


class WritingModule(MeasuredModule):
    """Writes the edits that have values, and knows at any moment from where a run could go on.

    `EditingModule` says which values, when and with what.

    Attributes:
        kept: Where a run that is stopped goes on.
        last_update: What callbacks are told of.
        stopped: Why no more edits are made; None while all is well.
        history: Where this run's updates can be looked up, if they are kept.
        earlier_histories: The same for the runs it is built upon, the latest first.
        post_processed: Whether the sum of all updates was changed after the last one.
        was_finished: Whether the run had written all its edits before it was resumed.
    """

    many_processes = True
    stages = ("values", "second_moments", "solve", "checkpoints")
    queue: EditQueue
    templates: ContextTemplates | None
    key_average: Literal["nested", "flat"]
    previous_keys: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.editor: Editor | None = None
        self.last_update: LastUpdate | None = None
        self.history: History | None = None
        self.earlier_histories: list[History] = []
        self.kept = RunState()
        self.independent_updates = IndependentUpdates()
        self.passes = 0

    # -- what callbacks may look at ------------------------------------------------------------------------------------

    @property
    def edits_waiting(self) -> int:
        """How many edits have values and no update yet."""
        return self.queue.waiting

    @property
    def requests_so_far(self) -> list[EditRequest]:
        """The edits that the model has learned by now, those that wait for their update included."""
        requests = self.requests
        return [requests[position] for position in self.queue.so_far()]

    @property
    def _histories(self) -> list[History]:
        """Where what was written before can be looked up, the latest run first."""
        return [*([] if self.history is None else [self.history]), *self.earlier_histories]

    @contextmanager
    def edits_so_far(self) -> Iterator[None]:
        """The model with all edits so far: those that wait are solved for the time of the ``with`` block."""
        if not self.edits_waiting:
            yield
            return
        assert self.editor is not None
        previous = self.editor.previous_keys
        try:
            with self.weights.restored():
                positions, z = self.queue.together_now(self.requests)
                requests = [self.requests[position] for position in positions]
                release_replaced(self.editor, self._histories, requests, told=False)
                self.editor.write(requests, z, measured=False)
                yield
        finally:
            self.editor.previous_keys = previous

    def _write(self) -> None:
        """Writes the edits that wait as one update, lets callbacks look at it, and keeps it unless one refuses."""
        assert self.editor is not None
        positions, z = self.queue.take(self.requests)
        requests = [self.requests[position] for position in positions]
        with self.timed("solve"):
            release_replaced(self.editor, self._histories, requests)
            written = self.editor.write(requests, z)
            if self.independent:
                for layer, added in self.editor.finish().items():
                    written.factors[layer] = Factors(written.factors[layer].dense() + added.dense())
        self.edits_written += len(requests)
        self.updates_written += 1
        spent = sum(self.seconds[name] - self.kept.seconds.get(name, 0.0) for name in ("values", "solve"))
        self.last_update = LastUpdate(self.updates_written, requests, written, spent)
        self.log_figures(written.figures, self.edits_written)
        tell(self, "on_edits_written")
        # What one process found fault with, the others may have seen a last bit differently.
        self.stopped = self.trainer.strategy.broadcast(self.stopped)
        if self.stopped is not None:
            rank_zero_warn(f"The last update is undone and the run ends with the model from before it: {self.stopped}")
            self.last_update = None
            self.return_to_kept()
            self.kept = replace(self.kept, stopped=self.stopped)
            self.trainer.should_stop = True
            tell(self, "on_update_refused")
            return
        if self.independent:
            self.independent_updates.keep(requests, self.weights)
        self._keep_state()
        tell(self, "on_update_kept")

    def refuse_update(self, reason: str) -> None:
        """Tells the module in `on_edits_written` that an update did harm: it is undone, and the fit ends there.

        Args:
            reason: What a user should read.
        """
        self.stopped = reason

    def _keep_state(self, finished: bool = False) -> None:
        """From here on a run that is stopped goes on from what is now."""
        assert self.editor is not None
        self.left_out = [self.requests[position].name for position in self.queue.left_out]
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
            pending=list(self.queue.pending),
            seconds=dict(self.seconds),
            curves=list(self.curves),
        )

    def return_to_kept(self) -> None:
        """Forgets what was begun since the last update that was kept."""
        state = self.kept
        self.queue.restore(state)
        self.micro_batches, self.passes = state.micro_batches, state.passes
        self.edits_written, self.updates_written = state.edits_written, state.updates_written
        self.curves = list(state.curves)
        self.weights.set(state.added)
        if self.editor is not None and self.previous_keys:
            self.editor.previous_keys = state.previous_keys

    def _finish(self) -> LastUpdate | None:
        """Post-processes the sum of all updates; what that adds counts as an update without edits."""
        assert self.editor is not None
        added = self.editor.finish()
        self.post_processed = bool(added)
        return LastUpdate(self.updates_written + 1, [], Written(added, {}, {}), 0.0) if added else self.last_update

    # -- measuring -----------------------------------------------------------------------------------------------------

    def _edited_together(self, requests: Sequence[EditRequest]) -> list[Sequence[EditRequest]]:
        return self.independent_updates.split(requests)

    @contextmanager
    def as_edited(self, requests: Sequence[EditRequest]) -> Iterator[None]:
        """The weights on which the requests, written together, are measured."""
        with self.independent_updates.inserted(requests, self.weights):
            yield

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """What a checkpoint tells of the run beside weights and settings."""
        return {"context_templates": None if self.templates is None else list(self.templates.texts)}

    def state(self) -> RunState:
        """What a checkpoint keeps of the run."""
        return self.kept

    def restore(self, state: RunState, described: dict[str, Any]) -> None:
        """Goes on where a checkpoint was written.

        Args:
            state: That of the run.
            described: What `describe` told.
        """
        self.kept, self.stopped, self.was_finished = state, state.stopped, state.finished
        if self.independent and state.updates_written:
            if self.history is None:
                raise EditError(
                    "Independent updates are kept in the run's updates/ alone, which a fit with EditCheckpoint reads; "
                    "this checkpoint holds no edited weights."
                )
            written = [position for position in range(state.offered + state.taken) if position not in state.left_out]
            requests = [self.requests[position] for position in written[: state.edits_written]]
            self.independent_updates.load(self.history, state.updates_written, requests)
        if described["context_templates"] is not None:
            self.templates = ContextTemplates(tuple(described["context_templates"]), self.key_average)
        self.return_to_kept()
