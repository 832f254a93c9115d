"""The LightningModule of methods that write their edits in updates, after each of which a stopped run can go on."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace

from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_edit.requests import EditRequest
from lightning_edit.run.early_end import edits_left
from lightning_edit.run.edit_callback import call_hooks
from lightning_edit.run.measured_module import MeasuredModule
from lightning_edit.updates.model_update import ModelUpdate
from lightning_edit.updates.written import check_written
from lightning_edit.values.vectors import Values


class UpdatingModule(MeasuredModule):
    """Gathers edits in `training_step`, and has `loop` write an update whenever one is complete, or at the end.

    Attributes:
        work: The stages whose time an update takes, the one that writes it last.
    """

    work: tuple[str, ...] = ("values", "solve")
    _next = 0

    def configure_optimizers(self) -> None:
        """None: value vectors have an optimizer of their own, and no weight is trained."""

    # -- micro-batch by micro-batch ------------------------------------------------------------------------------------

    def on_train_epoch_start(self) -> None:
        """Begins with the first edit; those that a resumed run has done are passed over in `training_step`."""
        self._next = 0

    def training_step(self, batch: Sequence[EditRequest], batch_idx: int) -> None:
        """Finds the value vectors of a micro-batch of edits, and writes an update whenever one is complete."""
        start, self._next = self._next, self._next + len(batch)
        if batch_idx < self.loop.micro_batches:
            return
        queue = self.loop.queue
        while self.loop.stopped is None and (part := queue.part(batch, start)):
            for _ in queue.add(self._find_values(part)):
                self._write_update()
                if self.loop.stopped is not None:
                    return
        self.loop.micro_batches += 1
        call_hooks(self, "on_values_found")

    @abstractmethod
    def _find_values(self, part: Sequence[EditRequest]) -> Values:
        """The values of a part of a micro-batch; see `waiting` for a method that needs none."""

    # -- update by update ----------------------------------------------------------------------------------------------

    def _write_update(self) -> None:
        """Writes the edits that wait as one update, lets callbacks look at it, and keeps it unless one refuses."""
        finding, writing = self.work[0], self.work[-1]
        with self.timed(writing):
            update = self.loop.write(self.requests, self.report)
        for name, share in ((finding, 1), (writing, -1)):
            self.seconds[name] += share * update.written.values_seconds
        spent = sum(self.seconds[name] - self.loop.kept.seconds.get(name, 0.0) for name in self.work)
        self.loop.last_update = replace(update, seconds=spent)
        self.log_figures(update.figures, self.loop.edits_written)
        call_hooks(self, "on_edits_written")
        # What one process found fault with, the others may have seen a last bit differently.
        self.loop.stopped = self.trainer.strategy.broadcast(self.loop.stopped)
        if self.loop.stopped is not None:
            self._undo_update(self.loop.stopped)
            return
        self.loop.set_aside()
        self._keep()
        call_hooks(self, "on_update_kept")

    def _undo_update(self, reason: str) -> None:
        rank_zero_warn(f"The last update is undone and the run ends with the model from before it: {reason}")
        self.loop.undo()
        self.curves = list(self.loop.kept.curves)
        self.trainer.should_stop = True
        call_hooks(self, "on_update_refused")

    def _keep(self, finished: bool = False) -> None:
        self.loop.keep(self.requests, self.seconds, self.curves, finished)

    # -- the fit ends --------------------------------------------------------------------------------------------------

    def on_fit_end(self) -> None:
        """Writes what has values and no update yet, and keeps the whole update of the run."""
        # The strategy has moved the module to the CPU by now.
        self.to(self.trainer.strategy.root_device)
        loop = self.loop
        assert loop.editor is not None
        if loop.queue.waiting and loop.stopped is None:
            self._write_update()
        left = edits_left(self)
        check_written(loop.edits_written, loop.stopped, bool(loop.built_upon))
        if not (left or loop.kept.finished or loop.independent):
            loop.finish()
        self._keep(finished=not left)
        if not loop.independent:
            self.update = self._whole_update()
        call_hooks(self, "on_edits_done")
        if self.trainer.received_sigterm:
            # No loop runs any more that would look at it.
            raise SIGTERMException

    def _whole_update(self) -> ModelUpdate | None:
        """All that the run has added to the weights; None where nothing is."""
        assert self.loop.editor is not None
        on_top = {"on_top": True} if self.loop.built_upon else {}
        return self.weights.update(**self.loop.editor.describe(), edits=self.loop.edits_written, **on_top)
