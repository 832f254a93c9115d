"""Several runs side by side: a table, and a figure as a file and in TensorBoard."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args

from rich.text import Text

from lightning_edit.commands.comparison.lines import Axis, Line, lines_of
from lightning_edit.commands.comparison.runs import Run, read_runs
from lightning_edit.commands.comparison.seeds import joined_seeds
from lightning_edit.commands.comparison.table import columns_of, notes_of
from lightning_edit.commands.comparison.table import table as drawn_table
from lightning_edit.commands.comparison.written_table import check_table, write_table
from lightning_edit.errors import EditError
from lightning_edit.messages import counted, terminal
from lightning_edit.storage.own_outputs import FIGURE, check_replaced

__all__ = ["compare", "usual_metric"]

FIGURES = (".png", ".pdf", ".svg")
USUAL = ("S", "efficacy_score", "efficacy_accuracy")


def compare(
    runs: list[str],
    metric: str | list[str] | None = None,
    x: Literal["edits", "batch_size"] = "edits",
    output: str = "comparison.png",
    labels: list[str] | Mapping[str, str] | None = None,
    table: str | None = None,
    significance: bool = False,
    zoom: bool = False,
) -> None:
    """Compares finished runs in one table and one figure with a line, or a bar, for each method.

    Runs that differ only in the number of edits (with ``x`` ``batch_size`` also in the edits of an update) make one
    line. Runs that differ only in their seeds are shown by their mean and standard deviation.

    Args:
        runs: Folders of runs, or folders that hold such folders.
        metric: What the figure shows, one panel for each: names in ``metrics.json`` or ``curves.jsonl``, as a list or
            separated by commas. If not given, it is the first of S, efficacy score and accuracy that all runs have, or
            else that some have.
        x: Against what: ``edits`` shows how a run went on, ``batch_size`` (edits of one update) the ends of the runs.
        output: The figure, a PNG, PDF or SVG file; for TensorBoard it lands in a folder ``comparison`` beside it.
        labels: Names in place of the runs' or methods' own, one for each row of the table in its order, or by the
            folders of runs; rows that share one make one line.
        table: A LaTeX, CSV or Markdown file for the table as well.
        significance: Whether to test each pair of methods over the records that both have; see `paired_tests`.
        zoom: Whether axes of percentages show only what is needed, and not 0 to 100.

    Raises:
        EditError: If a folder holds no finished run, a file cannot be read, or no run has a metric.
    """
    path, names = Path(output).expanduser(), None if metric is None else _names(metric)
    table_file = None if table is None else Path(table).expanduser()
    _check_settings(runs, names, x, path)
    check_table(table_file)
    found, notes = read_runs([Path(run).expanduser() for run in runs])
    finished = joined_seeds(found)
    metrics = [usual_metric(finished)] if names is None else names
    _check_metrics(finished, metrics, x)
    given = [labels[str(run.folder)] for run in finished] if isinstance(labels, Mapping) else labels
    _check_labels(finished, given)
    lines, columns = lines_of(finished, x, given), columns_of(finished, metrics)
    tested = _tested(lines, columns if names is None else names) if significance else None
    # Most of the time that a comparison takes; a mistake is answered without it.
    from lightning_edit.commands.comparison.figure_file import write_figure

    write_figure(path, lines, metrics, x, zoom)
    if table_file is not None:
        write_table(table_file, finished, lines, columns)
    _show(drawn_table(finished, lines, columns), [*notes, *notes_of(finished, lines, metrics, x)])
    if tested is not None:
        _show(tested, [])
    written = [path, path.parent / "comparison", *([] if table_file is None else [table_file])]
    terminal().print(f"Written: {', '.join(map(str, written))}", soft_wrap=True)


def _tested(lines: Sequence[Line], metrics: Sequence[str]) -> Any:
    if len(lines) < 2:
        raise EditError(f"`significance` compares two methods or more, and there is one: {lines[0].label}.")
    # Takes as long to import as the figure, and torch.
    from lightning_edit.commands.comparison.significance import of_records, paired_tests, table_of

    return table_of(paired_tests(lines, of_records(metrics)))


def _names(metric: str | Sequence[str]) -> list[str]:
    given = metric.split(",") if isinstance(metric, str) else metric
    return list(dict.fromkeys(name.strip() for name in given if name.strip()))


def _check_settings(runs: Sequence[str], metrics: Sequence[str] | None, x: str, path: Path) -> None:
    if not runs:
        raise EditError("`runs`: expected at least one folder of a run, got none.")
    if metrics is not None and not metrics:
        raise EditError("`metric`: expected at least one name, got none.")
    if x not in get_args(Axis):
        raise EditError(f"`x` must be {' or '.join(get_args(Axis))}, got {x}.")
    if path.suffix.lower() not in FIGURES or path.is_dir():
        raise EditError(f"`output` must be a file whose name ends in {', '.join(FIGURES)}, got {path}.")
    check_replaced("output", path, FIGURE)


def usual_metric(runs: Sequence[Run]) -> str:
    """The first of S, efficacy score and accuracy that all runs have, or else that some have.

    Args:
        runs: The runs.
    """
    counts = {name: sum(name in run.after for run in runs) for name in USUAL}
    return max(USUAL, key=lambda name: (counts[name] == len(runs), counts[name] > 0))


def _check_metrics(runs: Sequence[Run], metrics: Sequence[str], x: Axis) -> None:
    measured = sorted({name for run in runs for name in run.metrics(finished=x == "batch_size")})
    for metric in metrics:
        if metric not in measured:
            close = get_close_matches(metric, measured, n=1, cutoff=0.5)
            hint = f" Did you mean {close[0]}?" if close else ""
            where = "at the end of any run" if x == "batch_size" else "in any run"
            raise EditError(f"`metric`: {metric} was not measured {where}.{hint} There are: {', '.join(measured)}.")


def _check_labels(runs: Sequence[Run], labels: Sequence[str] | None) -> None:
    if labels is not None and len(labels) != len(runs):
        folders = ", ".join(str(run.folder) for run in runs)
        raise EditError(
            f"`labels`: expected one for each of {counted(len(runs), 'run')} ({folders}), in this order, "
            f"got {len(labels)}."
        )


def _show(drawn: Any, notes: Sequence[str]) -> None:
    console = terminal()
    if not console.is_terminal:
        # A pipe or file has no width that the table would have to fit.
        console.width = max(console.width, console.measure(drawn, options=console.options.update(width=1000)).maximum)
    console.print(drawn)
    for note in notes:
        console.print(Text(f"! {note}", style="yellow"), soft_wrap=True)
