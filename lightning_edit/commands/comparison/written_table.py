"""The table of a comparison as a file: LaTeX and Markdown for reading, CSV for computing."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from lightning_edit.commands.comparison.lines import Line
from lightning_edit.commands.comparison.quantities import quantity
from lightning_edit.commands.comparison.runs import Run
from lightning_edit.commands.comparison.table import best_of
from lightning_edit.errors import EditError
from lightning_edit.storage.atomic import atomic_path
from lightning_edit.storage.own_outputs import check_replaced

LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}
# With a backslash before it each stands for itself.
MARKDOWN = "\\`*_{}[]<>|#~"
COLUMNS = ("method", "edits", "batch_size", "seeds")
# How each kind of table begins.
KINDS = {".tex": b"% needs \\usepackage{booktabs}", ".csv": ",".join(COLUMNS).encode(), ".md": b"| method | edits |"}


def check_table(path: Path | None) -> None:
    """Refuses a file of another kind, and one that is there and is no such table.

    Args:
        path: The file, None for none.

    Raises:
        EditError: Names the kinds that there are, or the file.
    """
    if path is None:
        return
    if path.suffix.lower() not in KINDS or path.is_dir():
        raise EditError(f"`table` must be a file whose name ends in {', '.join(KINDS)}, got {path}.")
    check_replaced("table", path, KINDS[path.suffix.lower()])


def write_table(path: Path, runs: Sequence[Run], lines: Sequence[Line], columns: Sequence[str]) -> None:
    """Writes a row for each run with its figures at the end.

    CSV holds numbers as they are stored, shares from 0 to 1, with the figures before editing and all errors: standard
    errors over records, of several seeds standard deviations over these. The others hold what is to be read, the best
    of each column in bold.

    Args:
        path: The file, whose ending says what kind it is.
        runs: The runs.
        lines: The lines they make.
        columns: Names of the figures.
    """
    label_of = {run.folder: line.label for line in lines for run in line.runs}
    labels = [label_of[run.folder] for run in runs]
    columns = [name for name in columns if any(name in run.after for run in runs)]
    make = {".tex": _latex, ".csv": _csv, ".md": _markdown}[path.suffix.lower()]
    with atomic_path(path) as scratch:
        scratch.write_text(make(runs, labels, columns), encoding="utf-8")


def latex_text(text: str) -> str:
    """A text that LaTeX sets as it is.

    Args:
        text: Any text.
    """
    return "".join(LATEX.get(sign, sign) for sign in " ".join(text.split()))


def markdown_text(text: str) -> str:
    """A text that a cell of a Markdown table shows as it is.

    Args:
        text: Any text.
    """
    return "".join(f"\\{sign}" if sign in MARKDOWN else sign for sign in " ".join(text.split()))


def _numbers(runs: Sequence[Run]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of what a row begins with, after its method; what is the same for all is left out."""
    parts = {"edits": [run.edits for run in runs], "batch size": [run.batch_size for run in runs]}
    parts["seeds"] = [run.seeds for run in runs]
    shown = [name for name, values in parts.items() if name == "edits" or (len(set(values)) > 1 or max(values) > 1)]
    shown = [name for name in shown if name != "batch size" or parts[name] != parts["edits"]]
    return shown, [[str(parts[name][row]) for name in shown] for row in range(len(runs))]


def _cells(runs: Sequence[Run], name: str, plus_minus: str, bold: str) -> list[str]:
    shown, values = quantity(name), [run.after.get(name) for run in runs]
    best = best_of(values, shown.lower_is_better)
    cells = []
    for run, value in zip(runs, values, strict=True):
        if value is None:
            cells.append("")
            continue
        text = shown.text(value)
        is_best = best is not None and text == shown.text(best)
        text = bold.format(text) if is_best else text
        error = run.after.get(f"{name}_stderr")
        cells.append(text if error is None else f"{text} {plus_minus} {shown.text(error)}")
    return cells


def _latex(runs: Sequence[Run], labels: Sequence[str], columns: Sequence[str]) -> str:
    first, numbers = _numbers(runs)
    cells = [_cells(runs, name, r"$\pm$", r"\textbf{{{}}}") for name in columns]
    headings = ["method", *first, *(quantity(name).heading for name in columns)]
    rows = [
        [latex_text(label), *own, *(column[row] for column in cells)]
        for row, (label, own) in enumerate(zip(labels, numbers, strict=True))
    ]
    lines = [
        r"% needs \usepackage{booktabs}",
        rf"\begin{{tabular}}{{l{'r' * (len(headings) - 1)}}}",
        r"\toprule",
        rf"{' & '.join(map(latex_text, headings))} \\",
        r"\midrule",
        *(rf"{' & '.join(row)} \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _markdown(runs: Sequence[Run], labels: Sequence[str], columns: Sequence[str]) -> str:
    first, numbers = _numbers(runs)
    cells = [_cells(runs, name, "±", "**{}**") for name in columns]
    headings = ["method", *first, *(quantity(name).heading for name in columns)]
    rows = [
        [markdown_text(label), *own, *(column[row] for column in cells)]
        for row, (label, own) in enumerate(zip(labels, numbers, strict=True))
    ]
    lines = [map(markdown_text, headings), ["---", *["---:"] * (len(headings) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _csv(runs: Sequence[Run], labels: Sequence[str], columns: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    of_figures = [part for name in columns for part in (f"{name}_before", name, f"{name}_error")]
    writer.writerow([*COLUMNS, *of_figures, "seconds"])
    for run, label in zip(runs, labels, strict=True):
        figures = [
            value
            for name in columns
            for value in (run.before.get(name, ""), run.after.get(name, ""), run.after.get(f"{name}_stderr", ""))
        ]
        writer.writerow([label, run.edits, run.batch_size, run.seeds, *figures, sum(run.seconds.values()) or ""])
    return text.getvalue()
