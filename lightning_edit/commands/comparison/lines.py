"""Which runs make one line of the figure, and its points."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lightning_edit.commands.comparison.runs import Run
from lightning_edit.commands.comparison.seeds import stem, without_seeds
from lightning_edit.commands.comparison.settings import ONCE, shortest_labels
from lightning_edit.messages import printable

LONGEST_LABEL = 200

Axis = Literal["edits", "batch_size"]


@dataclass(frozen=True)
class Point:
    """A measured value.

    Args:
        x: Number of edits, or edits in one update.
        value: As it is stored.
        stderr: Its standard error, None if unknown.
    """

    x: int
    value: float
    stderr: float | None = None


@dataclass(frozen=True)
class Line:
    """Runs of one method.

    Args:
        label: What tells it from the other lines.
        runs: Its runs.
    """

    label: str
    runs: tuple[Run, ...]


def lines_of(runs: Sequence[Run], x: Axis, labels: Sequence[str] | None = None) -> list[Line]:
    """Joins the runs that differ only in the number of edits, and for a batch size also in that.

    A run with a curve of its own stays apart from those of other lengths. So do runs that would meet at one batch size
    with different numbers of edits.

    Args:
        runs: The runs.
        x: What the figure is drawn against.
        labels: Labels of the runs, which then alone decide; None finds the shortest ones.

    Returns:
        Lines in the order of their first runs.
    """
    names = list(labels) if labels is not None else _labels(runs, shortest_labels(_keys(runs, x)), x)
    joined: dict[str, list[Run]] = {}
    for name, run in zip(names, runs, strict=True):
        joined.setdefault(name, []).append(run)
    return [Line(_short(name), tuple(members)) for name, members in joined.items()]


def _labels(runs: Sequence[Run], methods: Sequence[str], x: Axis) -> list[str]:
    """What users called their runs, and methods where they did not; numbers at the end do not count within a line."""
    joined = [(method, stem(run.name)) for method, run in zip(methods, runs, strict=True)]
    meeting: dict[tuple[object, int], set[str | None]] = {}
    for kind, run in zip(joined, runs, strict=True):
        meeting.setdefault((kind, run.edits if x == "edits" else run.batch_size), set()).add(run.name)
    # Runs that would meet at one place are no line: whoever gave them two names wants to see both.
    apart = {kind for (kind, _), names_there in meeting.items() if len(names_there) > 1}
    kinds = [(kind[0], run.name if kind in apart else kind[1]) for kind, run in zip(joined, runs, strict=True)]
    names = {kind: {run.name for run, of in zip(runs, kinds, strict=True) if of == kind} for kind in kinds}
    shown = {kind: (min(names[kind], key=str) if len(names[kind]) == 1 else kind[1]) or kind[0] for kind in kinds}
    twice = {label for label in shown.values() if list(shown.values()).count(label) > 1}
    return [f"{shown[kind]} ({kind[0]})" if shown[kind] in twice else shown[kind] for kind in kinds]


def _short(label: str) -> str:
    """A label that a figure can show; of a longer one the beginning and the end, which is where others differ."""
    label = printable(label)
    half = LONGEST_LABEL // 2
    return label if len(label) <= LONGEST_LABEL else f"{label[:half]}...{label[-half:]}"


def _keys(runs: Sequence[Run], x: Axis) -> list[dict[str, str]]:
    """What the runs of a line share."""
    if x == "edits":
        return [{**without_seeds(run.settings), **({"edits": str(run.edits)} if run.has_curve else {})} for run in runs]
    keys = [{name: value for name, value in without_seeds(run.settings).items() if name != ONCE} for run in runs]
    for key in [dict(key) for key in keys]:
        members = [i for i, other in enumerate(keys) if other == key]
        places = {(runs[i].batch_size, runs[i].edits) for i in members}
        if len({batch_size for batch_size, _ in places}) < len(places):
            for i in members:
                keys[i]["edits"] = str(runs[i].edits)
    return keys


def points_of(line: Line, metric: str, x: Axis) -> tuple[Point, ...]:
    """The points of a line in rising order.

    Where several runs measured the same place, the one with the most edits counts, and of equal ones the last.

    Args:
        line: The line.
        metric: The name of the figure.
        x: ``edits`` takes all that a run measured, ``batch_size`` only its end.
    """
    points: dict[int, Point] = {}
    for run in sorted(line.runs, key=lambda run: run.edits):
        for place, figures in run.measured.items() if x == "edits" else [(run.batch_size, run.after)]:
            if metric in figures:
                points[place] = Point(place, figures[metric], figures.get(f"{metric}_stderr"))
    return tuple(points[place] for place in sorted(points))
