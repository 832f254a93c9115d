"""How long work tells how far it is: a function of stage, done, total and figures; who shows it is not its business."""

from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from lightning_edit.messages import printable, readable, terminal


class Report(Protocol):
    """Called from long work, often."""

    def __call__(self, stage: str, done: float, total: float, **figures: float) -> None:
        """Tells how far a stage is.

        Args:
            stage: Its name, e.g. ``"values (edits)"``.
            done: How much is done, in the unit of the stage.
            total: How much there is.
            **figures: What else is worth a look, e.g. the loss.
        """


def silent(stage: str, done: float, total: float, **figures: float) -> None:
    """A `Report` that shows nothing."""


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        elapsed = task.finished_time if task.finished else task.elapsed
        return Text(f"{task.completed / elapsed:,.1f}/s" if elapsed else "", style="cyan")


class ProgressBars:
    """A `Report` that draws one rich bar for each stage, with its rate and figures.

    It draws while a stage is under way and leaves the finished bar; a stage that starts again gets a new one.

    Args:
        console: Where to draw; standard error by default, so that results can be piped.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", justify="left", markup=False),
            BarColumn(bar_width=18),
            MofNCompleteColumn(),
            _RateColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[figures]}", style="dim", markup=False),
            console=console or terminal(stderr=True),
        )
        self._tasks: dict[str, int] = {}

    def __call__(self, stage: str, done: float, total: float, **figures: float) -> None:
        """Draws the stage; see `Report`."""
        # A terminal of 80 columns has room for one figure, a wider one for more; loggers take all.
        room = max(1, (self._progress.console.width - 60) // 20)
        shown = ", ".join(f"{name.replace('_', ' ')} {readable(value)}" for name, value in list(figures.items())[:room])
        if stage not in self._tasks:
            self.start()
            self._tasks[stage] = self._progress.add_task(printable(stage), total=total, figures=shown)
        self._progress.update(self._tasks[stage], completed=int(done), total=total, figures=shown)  # type: ignore[arg-type]
        if done >= total:
            del self._tasks[stage]
            if not self._tasks:
                self.stop()

    def start(self) -> None:
        """Begins to draw."""
        self._progress.start()

    def stop(self) -> None:
        """Draws the last state and gives the terminal back."""
        self._progress.stop()
        for task in list(self._progress.task_ids):
            self._progress.remove_task(task)
        self._tasks.clear()

    def __enter__(self) -> "ProgressBars":
        """Begins to draw."""
        self.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        """Stops drawing."""
        self.stop()


def share_of(report: Report, bar: str, start: float, size: float, whole: float, passes: int) -> Report:
    """A report of several passes over one part of a whole, which turns them into progress of the whole.

    Args:
        report: Where it goes.
        bar: What it is called there.
        start: How much of the whole is done.
        size: How large the part is.
        whole: How large the whole is.
        passes: How often the part is gone through.
    """
    finished = 0

    def show(stage: str, done: float, total: float, **figures: float) -> None:
        nonlocal finished
        share = min((finished + done / max(total, 1)) / passes, 1 - 1e-9)
        finished += done >= total
        report(bar, start + share * size, whole)

    report(bar, start, whole)
    return show
