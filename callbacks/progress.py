"""Progress bars for the stages of an editing run."""

from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ProgressBar

from lightning_edit.progress import ProgressBars
from lightning_edit.run.edit_callback import EditingRun


class EditProgressBar(ProgressBar):
    """One bar for each stage (evaluation, second moments, values), with its rate and the loss.

    Lightning's own bar counts micro-batches, of which a run may have a single one.
    """

    def __init__(self) -> None:
        super().__init__()
        self._bars: ProgressBars | None = None
        self._enabled = True

    def report(self, stage: str, done: float, total: float, **figures: float) -> None:
        """Draws a stage; see `lightning_edit.progress.Report`."""
        if self._enabled and self.trainer.is_global_zero:
            self._bars = self._bars or ProgressBars()
            self._bars(stage, done, total, **figures)

    def disable(self) -> None:
        """Shows nothing from now on."""
        self._enabled = False

    def enable(self) -> None:
        """Shows stages again."""
        self._enabled = True

    def pause(self) -> None:
        """Leaves the terminal to bars of others; what goes on after them gets a new line."""
        self._stop()

    def teardown(self, trainer: Trainer, pl_module: EditingRun, stage: str) -> None:
        """Gives the terminal back."""
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: EditingRun, exception: BaseException) -> None:
        """Gives the terminal back before the error is shown."""
        self._stop()

    def _stop(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_bars": None}
