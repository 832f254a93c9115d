"""How a run went on: which curves there are over the number of edits, from ``updates.csv`` and ``curves.jsonl``."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lightning_edit.commands.comparison.quantities import figure_of, quantity
from lightning_edit.commands.comparison.runs import Figures, Run
from lightning_edit.errors import EditError
from lightning_edit.messages import quoted
from lightning_edit.report.charts import MOST_LINES, Line, Panel
from lightning_edit.report.losses import BEHIND, LONG_CONTEXT
from lightning_edit.storage.user.files import csv_rows

FILE = "updates.csv"
# Fewer points make no curve.
LEAST = 3
# An axis of what should be 0 % ends here, if nothing is above.
LITTLE = 10.0
_RIGHT = re.compile(r"(^|_)(accuracy|acc|exact_match)$")
_GROWTH = re.compile(r"layer_(.+)/weight_growth")
# Of each curve the names that it may have; the first that the run has counts.
ANSWERS = {
    "facts just written": ("efficacy_score", "efficacy_accuracy"),
    "facts written earlier": ("retention_score", "retention_accuracy", "retention/efficacy_score"),
    "similar facts of others": ("neighborhood_score", "retention/neighborhood_score"),
}
HARM = {
    "general questions": ("collateral/general_worse",),
    "old answers": ("collateral/old_object_lost",),
    "other subjects": ("collateral/other_subjects_worse",),
    "same subjects": ("collateral/same_subject_worse",),
}


def read_rows(folder: Path) -> list[Figures]:
    """The rows of a run's ``updates.csv``, as far as they are numbers; none where there is no such file.

    Args:
        folder: The run's.

    Raises:
        EditError: If it is not what a run writes.
    """
    path = folder / FILE
    if not path.is_file() or not path.stat().st_size:
        return []
    rows = []
    # The row that a run was writing when it was killed has no end.
    whole = None if path.read_bytes().endswith(b"\n") else -1
    for row, where in list(csv_rows(path))[:whole]:
        try:
            figures = {name: float(cell) for name, cell in row.items()}
            if not figures["edits"].is_integer():
                raise ValueError(figures["edits"])
        except (KeyError, ValueError) as error:
            raise EditError(
                f"{where}: expected numbers and the number of `edits`, got {quoted(row)}. Put the file back as it was, "
                "or move it away to report without curves."
            ) from error
        rows.append({name: value for name, value in figures.items() if math.isfinite(value)})
    return rows


def panels_of(run: Run, rows: Sequence[Figures]) -> list[Panel]:
    """The curves of a run that has at least three points of any.

    Args:
        run: The run.
        rows: See `read_rows`.
    """
    measured = _measured(run, rows)
    found = [
        _panel(
            "Answers",
            "The line of the facts just written shows whether new facts still go in, that of the earlier ones whether "
            "they stay, and that of similar facts whether others are left alone. 100 % is best.",
            _named(measured, ANSWERS),
            measured,
        ),
        _panel(
            "Answers that got worse",
            "The share of questions that are answered worse than before the run. 0 % is best; a line that rises says "
            "that the model is losing something else.",
            _named(measured, HARM),
            measured,
            top=LITTLE,
        ),
        _panel(
            "Perplexity",
            "How much ordinary text surprises the model; lower is better. A line that rises steeply says that its "
            "language is breaking down.",
            dict(_perplexities(measured)),
            measured,
            unit="perplexity",
        ),
        _panel(
            "Tasks",
            "How well the model does other work. Lines that fall say that it is losing abilities.",
            dict(_tasks(measured)),
            measured,
        ),
        _panel(
            "Size of the edited weights",
            "How large the edited numbers of the model are, compared with before (1). Steady growth is the first sign "
            "of trouble.",
            dict(_growths(measured)),
            measured,
            unit="times the size before",
        ),
    ]
    return [panel for panel in found if panel is not None]


def _measured(run: Run, rows: Sequence[Figures]) -> dict[int, Figures]:
    measured: dict[int, Figures] = {}
    for row in rows:
        measured[int(row["edits"])] = dict(row)
    for edits, figures in run.measured.items():
        for name, value in figures.items():
            # The figures of the whole run have the names that those of one update have.
            if "/" in name:
                measured.setdefault(edits, {}).setdefault(name, value)
    return dict(sorted(measured.items()))


def _named(measured: Mapping[int, Figures], curves: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """For each curve the figure that it shows."""
    known = {name for figures in measured.values() for name in figures}
    found = {title: next((name for name in names if name in known), None) for title, names in curves.items()}
    return {title: name for title, name in found.items() if name is not None}


def _perplexities(measured: Mapping[int, Figures]) -> Iterator[tuple[str, str]]:
    for name in dict.fromkeys(name for figures in measured.values() for name in figures):
        if name == "perplexity":
            yield "your own text", name
        elif name == f"collateral/{LONG_CONTEXT}":
            yield BEHIND, name
        elif name.startswith("downstream/") and name.count("/") == 1 and not name.endswith(("_stderr", "_n")):
            yield name.partition("/")[2], name


def _tasks(measured: Mapping[int, Figures]) -> Iterator[tuple[str, str]]:
    for name in dict.fromkeys(name for figures in measured.values() for name in figures):
        room, _, rest = name.partition("/")
        if room in ("downstream", "harness") and "/" in rest and _RIGHT.search(figure_of(name)):
            task, _, figure = rest.partition("/")
            yield f"{task}, {re.sub('[_/]', ' ', figure)}", name


def _growths(measured: Mapping[int, Figures]) -> Iterator[tuple[str, str]]:
    for name in dict.fromkeys(name for figures in measured.values() for name in figures):
        if (match := _GROWTH.fullmatch(name)) is not None:
            yield f"layer {match[1]}", name


def _panel(
    title: str,
    meaning: str,
    curves: Mapping[str, str],
    measured: Mapping[int, Figures],
    unit: str = "%",
    top: float = 100.0,
) -> Panel | None:
    """A panel of the first few curves; None where none has enough points."""
    lines = [_line(name, figure, measured) for name, figure in list(curves.items())[:MOST_LINES]]
    lines = [line for line in lines if len(line.points) >= LEAST]
    return Panel(title, meaning, unit, tuple(lines), top if unit == "%" else None) if lines else None


def _line(title: str, name: str, measured: Mapping[int, Figures]) -> Line:
    factor = 100.0 if quantity(name).unit == "%" else 1.0
    points = []
    for edits, figures in measured.items():
        if name in figures:
            error = figures.get(f"{name}_stderr")
            points.append((edits, factor * figures[name], None if error is None else factor * error))
    return Line(title, tuple(points))
