"""How long work tells how far it is: a function of stage, done, total and figures; who shows it is not its business."""

from datetime import timedelta
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from lightning_edit.messages import printable, readable, terminal

# Seconds between the lines of a stage where no bar can be drawn.
LINE_EVERY = 60.0
# Seconds of a stage that has a rate.
SHORTEST = 0.01


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
        # What is reported once, at its end, took nobody knows how long.
        return Text(f"{task.completed / elapsed:,.1f}/s" if elapsed and elapsed > SHORTEST else "", style="cyan")


class ProgressBars:
    """A `Report` that draws one rich bar for each stage, with its rate and figures.

    It draws while a stage is under way and leaves the finished bar; a stage that starts again gets a new one. Where it
    writes into a file or a pipe, a stage under way has a line of text every minute instead.

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
        # When a stage began and with how much, and when its last line was written.
        self._lines: dict[str, tuple[float, float, float]] = {}

    def __call__(self, stage: str, done: float, total: float, **figures: float) -> None:
        """Draws the stage; see `Report`."""
        # A terminal of 80 columns has room for one figure, a wider one for more; loggers take all.
        room = max(1, (self._progress.console.width - 60) // 20)
        texts = [f"{name.replace('_', ' ')} {readable(value)}" for name, value in figures.items()]
        shown = ", ".join(texts[:room])
        if stage not in self._tasks:
            self.start()
            self._tasks[stage] = self._progress.add_task(printable(stage), total=total, figures=shown)
        self._progress.update(self._tasks[stage], completed=int(done), total=total, figures=shown)  # type: ignore[arg-type]
        if not self._progress.console.is_terminal and not self._progress.console.is_jupyter:
            self._write_line(stage, done, total, ", ".join(texts))
        if done >= total:
            del self._tasks[stage]
            if not self._tasks:
                self.stop()

    def _write_line(self, stage: str, done: float, total: float, figures: str) -> None:
        now = self._progress.get_time()
        started, first, last = self._lines.setdefault(stage, (now, done, now))
        if done >= total:
            del self._lines[stage]
        elif now - last >= LINE_EVERY and done - first > 1e-6 * total:
            self._lines[stage] = (started, first, now)
            # A stage that goes on where it was stopped begins with what is done already.
            left = (total - done) * (now - started) / (done - first)
            so_far, to_go = (timedelta(seconds=int(seconds)) for seconds in (now - started, left))
            # The updates of a run say so themselves.
            known = "" if "to go" in figures else f"about {to_go} to go"
            words = [f"{stage} {int(done):,}/{int(total):,}", f"{so_far} so far", known, figures]
            self._progress.console.print(printable(", ".join(filter(None, words))), soft_wrap=True)

    def start(self) -> None:
        """Begins to draw."""
        self._progress.start()

    def stop(self) -> None:
        """Draws the last state and gives the terminal back."""
        self._progress.stop()
        for task in list(self._progress.task_ids):
            self._progress.remove_task(task)
        self._tasks.clear()
        self._lines.clear()

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
