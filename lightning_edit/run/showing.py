"""What a run shows on the way: progress, the time of each stage, and figures for the loggers."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import LightningModule

from lightning_edit.loggers import LoggersOfRun
from lightning_edit.progress import Report, silent


class Showing(LightningModule):
    """A module that shows what it does.

    Attributes:
        stages: The stages whose time is reported beside that of the evaluation.
        seconds: Time spent on each stage.
        loggers_of_run: All loggers, see `LoggersOfRun`.
    """

    stages: tuple[str, ...] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seconds = dict.fromkeys((*self.stages, "evaluate"), 0.0)
        self.loggers_of_run = LoggersOfRun(self)

    @property
    def report(self) -> Report:
        """Where progress goes: the trainer's progress bar, where it can show stages."""
        return getattr(self.trainer.progress_bar_callback, "report", silent)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the time of a ``with`` block to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start

    def log_figures(self, figures: dict[str, float], step: int) -> None:
        """Gives figures to all loggers.

        Args:
            figures: Numbers by name.
            step: What they are drawn against.
        """
        self.loggers_of_run.figures(figures, step)
