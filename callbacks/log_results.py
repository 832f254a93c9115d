"""What a finished run shows in loggers beside its curves: examples, pictures, settings and the report."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn

from lightning_edit.callbacks.records import RecordResults
from lightning_edit.callbacks.report import EditReport
from lightning_edit.errors import EditError
from lightning_edit.loggers import LoggerAdapter, LoggersOfRun
from lightning_edit.run.edit_callback import EditCallback, EditingRun
from lightning_edit.settings import CountOrZero
from lightning_edit.storage.atomic import atomic_path
from lightning_edit.storage.run_files import LOGGERS
from lightning_edit.storage.run_folder import run_folder

PAGE = "report.html"


class LogResults(EditCallback):
    """Gives TensorBoard, W&B and MLflow what a finished run has to show: see the how-to page about loggers.

    That is an overview, the edits with the answers before and after (failures first), answers that got worse, figures,
    the settings by which runs are compared, and, where a logger keeps files, the report, which is then in the run's
    folder as ``report.html``, too. The seconds of each stage go to all loggers after each update. Nothing is done
    without loggers, or for those that take figures alone.

    What is shown is read from what `EditReport` and `RecordResults` have written, which come before it in the
    trainer's callbacks.

    Args:
        examples: How many edits are shown at most, those that failed first.

    Raises:
        EditError: If one of these callbacks is missing, or comes later.
    """

    def __init__(self, examples: CountOrZero = 100) -> None:
        self.examples = examples
        self._fitted = False
        self._tags: set[str] = set()

    def setup(self, trainer: Any, pl_module: EditingRun, stage: str) -> None:
        """Prepares the loggers, before Lightning writes to them."""
        _check_order(trainer.callbacks, self)
        pl_module.loggers_of_run.each(lambda one: one.prepare())

    def on_fit_start(self, trainer: Any, pl_module: EditingRun) -> None:
        """Notes that what is measured next is a run's result, and not that of a checkpoint that is measured again."""
        self._fitted = True

    def on_train_start(self, trainer: Any, pl_module: EditingRun) -> None:
        """Notes where loggers keep the run, or takes over what they were given by the first part of a resumed one."""
        if pl_module.identity.resumed:
            pl_module.loggers_of_run.know(self._tags)
        elif trainer.is_global_zero and not trainer.fast_dev_run:
            _note_names(run_folder(trainer), pl_module.loggers_of_run)

    def on_update_kept(self, trainer: Any, pl_module: EditingRun) -> None:
        """Shows where the time went so far."""
        seconds = {f"seconds/{name}": value for name, value in pl_module.seconds.items() if value}
        pl_module.log_figures(seconds, pl_module.loop.edits_written)
        self._tags = set(pl_module.loggers_of_run.tags)

    def state_dict(self) -> dict[str, Any]:
        """What the loggers were given so far, which is on their pages."""
        return {"tags": sorted(self._tags)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from there."""
        self._tags = set(state_dict["tags"])

    def on_test_end(self, trainer: Any, pl_module: EditingRun) -> None:
        """Shows the finished run."""
        loggers = pl_module.loggers_of_run
        finished = self._fitted and pl_module.loop.edits_written and "after" in pl_module.results
        if not trainer.is_global_zero or trainer.fast_dev_run or not finished:
            return
        if not any(one.shows_runs for one in loggers):
            return
        # Drawing takes a second to import.
        from lightning_edit.report import write_report
        from lightning_edit.report.content import content_of

        folder = run_folder(trainer)
        page = folder / PAGE if any(one.keeps_files for one in loggers) else None
        try:
            if page is not None:
                write_report([folder], page)
            content = content_of(folder, self.examples, sorted(loggers.tags), page)
        except (EditError, OSError) as error:
            rank_zero_warn(f"Loggers are not given the finished run: {error}")
            return
        loggers.content(content, pl_module.loop.edits_written)


def _note_names(folder: Path, loggers: LoggersOfRun) -> None:
    """Notes under which names loggers know the run, for one that goes on."""
    names: dict[str, str] = {}

    def note(one: LoggerAdapter) -> None:
        if (name := one.identity) is not None:
            names[type(one.logger).__name__] = name

    loggers.each(note)
    if names:
        with atomic_path(folder / LOGGERS) as scratch:
            scratch.write_text(json.dumps(names, indent=2) + "\n", encoding="utf-8")


def _check_order(callbacks: Sequence[Any], own: LogResults) -> None:
    before = list(callbacks)[: list(callbacks).index(own)]
    for kind in (EditReport, RecordResults):
        if not any(isinstance(one, kind) for one in before):
            raise EditError(
                f"LogResults shows what {kind.__name__} has written. Put {kind.__name__} before it in the trainer's "
                "`callbacks`, or leave LogResults out."
            )
