"""What an editing module tells callbacks beyond Lightning's own hooks."""

from dataclasses import dataclass
from typing import Any

from lightning.pytorch.callbacks import Callback

from lightning_edit.editor import Written
from lightning_edit.requests import EditRequest
from lightning_edit.settings import Checked


@dataclass(frozen=True)
class LastUpdate:
    """The update that callbacks are told of.

    Args:
        number: Counted from 1.
        requests: Its edits.
        written: What was added to the weights, with which keys.
        seconds: What its values and its solution took.
    """

    number: int
    requests: list[EditRequest]
    written: Written
    seconds: float

    @property
    def figures(self) -> dict[str, float]:
        """Norms, errors and condition numbers of each layer; see `Editor.write`."""
        return self.written.figures


class EditCallback(Checked, Callback):
    """A callback with hooks for the moments of an editing run; all of them do nothing here.

    Attributes:
        told_last: Whether the others are told first.
    """

    told_last = False

    def on_resume(self, trainer: Any, pl_module: Any) -> None:
        """Called when a fit goes on from a checkpoint, before the run is restored; `run_folder` is that run's now."""

    def on_values_found(self, trainer: Any, pl_module: Any) -> None:
        """Called after each micro-batch of edits has its values; they are not written yet, see `edits_so_far`."""

    def on_edits_written(self, trainer: Any, pl_module: Any) -> None:
        """Called after each update; the weights are edited, and `refuse_update` can still undo it."""

    def on_update_refused(self, trainer: Any, pl_module: Any) -> None:
        """Called when an update was undone; what was measured of it is to be forgotten."""

    def on_update_kept(self, trainer: Any, pl_module: Any) -> None:
        """Called when an update counts; a run that is resumed from here repeats nothing of what came before."""

    def on_edits_done(self, trainer: Any, pl_module: Any) -> None:
        """Called once after the last update, still on the training device."""


def tell(module: Any, moment: str) -> None:
    """Calls a hook of all callbacks that know it.

    Args:
        module: The module under way.
        moment: Name of one of the hooks of `EditCallback`.
    """
    knowing = [callback for callback in module.trainer.callbacks if isinstance(callback, EditCallback)]
    for callback in sorted(knowing, key=lambda callback: callback.told_last):
        getattr(callback, moment)(module.trainer, module)
