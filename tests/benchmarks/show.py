"""What the stages share to run their jobs and to show figures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.benchmarks.material import Choice
from tests.benchmarks.measure import apart

Row = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """Runs jobs, and holds what the command line asks of every stage.

    Args:
        console: Told what is run.
        threads: torch's, None for its own choice.
        device: ``cpu`` or ``cuda``.
        models: Names of models, None for each stage's own.
        edits: How many, None for each stage's own number.
        shrunk: Whether the large models have two narrow blocks, see `material.load`.
        here: Whether jobs run in this process, for a check that starts faster and keeps memory less apart.
    """

    console: Console
    threads: int | None = None
    device: str = "cpu"
    models: tuple[str, ...] | None = None
    edits: int | None = None
    shrunk: bool = False
    here: bool = False

    def __call__(self, what: str, job: Callable[..., Any], *args: Any) -> Any:
        """Runs a job in a process of its own and returns its result.

        Args:
            what: A description.
            job: A function that can be imported.
            *args: Its arguments.
        """
        self.console.print(what, style="dim")
        return job(*args) if self.here else apart(job, *args, threads=self.threads)

    def choices(self, models: Sequence[str], edits: int) -> list[Choice]:
        """What a stage measures, by its own list of models and its own number of edits where nothing was asked for."""
        return [Choice(name, self.edits or edits, self.device, self.shrunk) for name in self.models or models]


def table_of(title: str, caption: str, columns: Sequence[str], words: int, rows: Sequence[Sequence[str]]) -> Table:
    """A table whose first columns are words and whose others are numbers."""
    table = Table(title=title, caption=caption)
    for place, name in enumerate(columns):
        table.add_column(name, justify="left" if place < words else "right")
    for row in rows:
        table.add_row(*row)
    return table


def number(value: float) -> str:
    """Three figures, more where a number has more before its point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def ratio(slow: float, fast: float) -> str:
    """How many times faster."""
    return f"{slow / fast:.1f}x"


def percent(row: Row) -> str:
    """How much of the floor a row reaches."""
    return f"{100 * row['floor_fraction']:.0f} %"


def mebibytes(count: int) -> str:
    """Memory for people."""
    return f"{max(count, 0) / 2**20:,.0f} MiB"
