"""Several runs on one page: their table, and a picture of the figure that all of them have."""

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_edit.commands.comparison import usual_metric
from lightning_edit.commands.comparison.lines import lines_of
from lightning_edit.commands.comparison.quantities import quantity
from lightning_edit.commands.comparison.runs import Run
from lightning_edit.commands.comparison.table import best_of, columns_of, names_of, notes_of
from lightning_edit.report.figures import Shown
from lightning_edit.report.settings import without_folders


@dataclass(frozen=True)
class Cell:
    """A figure of a run.

    Args:
        before: As a text, empty if it was not measured.
        after: As a text, empty if it was not measured.
        best: Whether it is the best of all.
    """

    before: str
    after: str
    best: bool


@dataclass(frozen=True)
class Row:
    """A run of the table.

    Args:
        label: Its method, and what else tells it from the others.
        folder: The name of its folder.
        edits: How many facts it changed.
        cells: Its figures.
        seconds: How long it took, empty if unknown.
    """

    label: str
    folder: str
    edits: int
    cells: list[Cell]
    seconds: str


@dataclass(frozen=True)
class Comparison:
    """Several runs side by side.

    Args:
        headings: Of the figures.
        rows: A run each.
        notes: What must be known to read them rightly.
        shares: Of each run the figure that the picture shows.
        metric: Its name.
    """

    headings: list[str]
    rows: list[Row]
    notes: list[str]
    shares: list[Shown]
    metric: str

    @property
    def words(self) -> str:
        """What the picture shows, for those who cannot see it."""
        return f"{self.metric} at the end of each run. {'; '.join(f'{one.title}: {one.now}' for one in self.shares)}."


def compared(runs: Sequence[Run]) -> Comparison:
    """Compares runs as ``lightning-edit compare`` does.

    Args:
        runs: Two or more.
    """
    lines, metric = lines_of(runs, "edits"), usual_metric(runs)
    columns = columns_of(runs, [metric])
    label_of = {run.folder: line.label for line in lines for run in line.runs}
    cells = [_cells(runs, name) for name in columns]
    rows = [
        Row(
            label=label_of[run.folder],
            folder=folder,
            edits=run.edits,
            cells=[column[place] for column in cells],
            seconds=f"{sum(run.seconds.values()):.1f}" if run.seconds else "",
        )
        for place, (run, folder) in enumerate(zip(runs, names_of([run.folder for run in runs]), strict=True))
    ]
    return Comparison(
        headings=[quantity(name).heading for name in columns],
        rows=rows,
        notes=[_without_folders(note, runs) for note in notes_of(runs, lines, [metric], "edits")],
        shares=[_share(run, row.label, metric) for run, row in zip(runs, rows, strict=True) if metric in run.after],
        metric=quantity(metric).title,
    )


def _without_folders(note: str, runs: Sequence[Run]) -> str:
    """A note in which paths of settings are their last parts; the longest first, as one may begin another."""
    for value in sorted({value for run in runs for value in run.settings.values()}, key=len, reverse=True):
        note = note.replace(value, without_folders(value))
    return note


def _cells(runs: Sequence[Run], name: str) -> list[Cell]:
    shown = quantity(name)
    values = [run.after.get(name) for run in runs]
    best = best_of(values, shown.lower_is_better)
    cells = []
    for run, value in zip(runs, values, strict=True):
        before = shown.text(run.before[name]) if name in run.before else ""
        after = "" if value is None else shown.text(value, run.after.get(f"{name}_stderr"))
        is_best = value is not None and best is not None and shown.text(value) == shown.text(best)
        cells.append(Cell(before, after, is_best))
    return cells


def _share(run: Run, label: str, metric: str) -> Shown:
    title = f"{label} ({run.edits:,})"
    return Shown(metric, title, "", run.before.get(metric), run.after[metric], run.after.get(f"{metric}_stderr"), None)
