"""The table of a comparison, and what must be known to read it rightly."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from lightning_edit.commands.comparison.lines import Axis, Line, points_of
from lightning_edit.commands.comparison.quantities import quantity
from lightning_edit.commands.comparison.runs import Run
from lightning_edit.commands.comparison.settings import differing
from lightning_edit.messages import counted

# Where a score is lacking, as it needs the true answer, the accuracy says most.
IN_PLACE = {f"{kind}_score": f"{kind}_accuracy" for kind in ("efficacy", "paraphrase", "neighborhood")}
# The usual figures, with headings that leave room for the others on a terminal of 80 columns.
HEADINGS = {
    "efficacy_score": "efficacy\n%",
    "efficacy_accuracy": "efficacy\naccuracy %",
    "paraphrase_score": "para-\nphrase %",
    "paraphrase_accuracy": "paraphrase\naccuracy %",
    "neighborhood_score": "neighbor-\nhood %",
    "neighborhood_accuracy": "neighborhood\naccuracy %",
    "S": "S\n%",
    "generated_match": "generated\n%",
    "wild_exact_reliability": "exact\n%",
    "wild_exact_generalization": "exact\nparaphr. %",
    "wild_exact_locality": "exact\nlocality %",
    "wild_judged_reliability": "judged\n%",
    "wild_judged_generalization": "judged\nparaphr. %",
    "wild_judged_locality": "judged\nlocality %",
    "ripple_portability_said": "follows\n%",
    "ripple_multi_hop_said": "multi-\nhop %",
    "generation_entropy": "entropy\nbits",
}


def columns_of(runs: Sequence[Run], metrics: Sequence[str]) -> list[str]:
    """The figures in the table: the usual ones that a run has, accuracies where scores lack, and those asked for.

    Args:
        runs: The runs.
        metrics: What the figure shows.
    """
    shown = {name for run in runs for name in run.after if name not in IN_PLACE.values()}
    shown |= {name for run in runs for score, name in IN_PLACE.items() if score not in run.after and name in run.after}
    return list(dict.fromkeys([*(name for name in HEADINGS if name in shown), *metrics]))


def table(runs: Sequence[Run], lines: Sequence[Line], columns: Sequence[str]) -> Table:
    """A row for each run: figures before and after editing, with standard errors where known; the best are bold.

    Args:
        runs: The runs.
        lines: The lines they make.
        columns: Names of the figures to show.
    """
    names = [
        f"{run.seeds} seeds, {name} ..." if run.seeds > 1 else name
        for run, name in zip(runs, names_of([run.folder for run in runs]), strict=True)
    ]
    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    drawn.title = Text("before -> after editing", style="bold")
    drawn.add_column("run", overflow="fold", min_width=min(16, max(len(name) for name in names)))
    for heading in ("edits", "batch\nsize"):
        drawn.add_column(heading, justify="right", no_wrap=True)
    for name in columns:
        drawn.add_column(Text(HEADINGS.get(name, quantity(name).heading)), justify="right", overflow="fold")
    drawn.add_column("time\ns", justify="right", no_wrap=True)
    cells = [_cells(runs, name) for name in columns]
    seconds = [f"{sum(run.seconds.values()):.1f}" if run.seconds else "" for run in runs]
    best = best_of([sum(run.seconds.values()) if run.seconds else None for run in runs], lower=True)
    label_of = {run.folder: line.label for line in lines for run in line.runs}
    for i, run in enumerate(runs):
        who = Text.assemble(label_of[run.folder], "\n", (names[i], "dim"))
        time = Text(f"\n{seconds[i]}", style="bold" if best is not None and seconds[i] == f"{best:.1f}" else "")
        drawn.add_row(who, str(run.edits), str(run.batch_size), *(column[i] for column in cells), time)
    return drawn


def names_of(folders: Sequence[Path]) -> list[str]:
    """The last part of each path, or as many of the last parts as tell all apart.

    Args:
        folders: The paths.
    """
    paths = [folder.resolve().parts for folder in folders]
    length = 1
    while length < max(map(len, paths)) and len({path[-length:] for path in paths}) < len(paths):
        length += 1
    return ["/".join(path[-length:]) for path in paths]


def _cells(runs: Sequence[Run], name: str) -> list[Text]:
    shown = quantity(name)
    values = [run.after.get(name) for run in runs]
    best = best_of(values, shown.lower_is_better)
    cells = []
    for run, value in zip(runs, values, strict=True):
        # On the upper line what was, on the lower one what is.
        cell = Text(f"{shown.text(run.before[name])} ->" if name in run.before else "", style="dim")
        cell = Text.assemble(cell, "\n")
        if value is not None:
            bold = best is not None and shown.text(value) == shown.text(best)
            cell.append(shown.text(value, run.after.get(f"{name}_stderr")), style="bold" if bold else "")
        cells.append(cell)
    return cells


def best_of(values: Sequence[float | None], lower: bool) -> float | None:
    """The best value; None where all are alike.

    Args:
        values: A figure of each run, None where it was not measured.
        lower: Whether the smallest is the best.
    """
    finite = [value for value in values if value is not None and math.isfinite(value)]
    if len(set(finite)) < 2:
        return None
    return min(finite) if lower else max(finite)


def not_made(edits: int) -> str:
    """What must be known of the figures of a run that ended early.

    Args:
        edits: How many had no turn.
    """
    had = counted(edits, "edit was", "edits were")
    return f"{had} not made, as the run ended before their turn; its figures count them as edits that failed."


def notes_of(runs: Sequence[Run], lines: Sequence[Line], metrics: Sequence[str], x: Axis) -> Iterator[str]:
    """Warnings, one sentence or two each.

    Args:
        runs: The runs.
        lines: The lines they make.
        metrics: What the figure shows of them.
        x: What it is drawn against.
    """
    data = [{name: value for name, value in run.settings.items() if _tells_records(name)} for run in runs]
    if names := differing(data):
        shown = "; ".join(f"{name} {', '.join(dict.fromkeys(one.get(name, 'null') for one in data))}" for name in names)
        yield f"The runs were not measured on the same data ({shown}), so their figures cannot be compared."
    if names := differing([run.wild for run in runs if run.wild]):
        what = ", ".join(name.removeprefix("wild.") for name in names)
        yield f"Free answers were not asked or marked alike in all runs ({what}): exact and judged do not compare."
    for run in runs:
        if run.left_out:
            left_out = counted(run.left_out, "edit was", "edits were")
            yield f"{run.folder.name}: {left_out} left out because no value to write was found."
        if run.not_made:
            yield f"{run.folder.name}: {not_made(run.not_made)}"
    for line in lines:
        if counted_seeds := sorted({run.seeds for run in line.runs if run.seeds > 1}):
            many = " and ".join(map(str, counted_seeds))
            yield f"{line.label}: means over {many} seeds; ± and error bars are the standard deviation over these."
    for line in lines:
        counts = Counter((run.edits, run.batch_size) for run in line.runs)
        for (edits, batch_size), count in counts.items():
            if count > 1:
                made = f"{counted(edits, 'edit')} by {batch_size}"
                yield f"{line.label}: {count} runs with {made}; the figure shows the last one."
    for metric in metrics:
        lacking = [line.label for line in lines if not points_of(line, metric, x)]
        if lacking:
            yield f"{metric} was not measured by {', '.join(lacking)}."


def _tells_records(name: str) -> bool:
    return name.split(".")[0] == "data" and not name.startswith(("data.preservation", "data.batch_size"))
