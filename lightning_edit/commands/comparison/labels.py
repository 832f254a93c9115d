"""Which line is which: labels where the lines end, or a legend below."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_edit.commands.comparison.lines import Point
from lightning_edit.commands.comparison.style import COLORS, SMALL, WIDTH

MOST = 7
# In characters: beside one panel, and beside several.
ROOM, MORE_ROOM = 14, 28
# Of a line of text, in points.
LINE = 1.2 * SMALL


def has_room(labels: Sequence[str], panels: Sequence[Sequence[Sequence[Point]]]) -> bool:
    """Whether all lines can be labeled where they end: few, of short names, and all ending at one place.

    Args:
        labels: Of the lines.
        panels: For each metric the points of each line.
    """
    room = ROOM if len(panels) == 1 else MORE_ROOM
    ends = {points[-1].x if points else None for points in panels[-1]}
    finite = all(math.isfinite(points[-1].value) for points in panels[-1] if points)
    return len(labels) <= MOST and max(map(len, labels)) <= room and len(ends) == 1 and None not in ends and finite


def label_ends(
    figure: Figure, axes: Axes, labels: Sequence[str], panel: Sequence[Sequence[Point]], factor: float
) -> None:
    """Writes the name of each line beside its end, and moves names apart that would lie upon each other.

    Args:
        figure: The figure.
        axes: Its last panel.
        labels: Of the lines.
        panel: The points of each.
        factor: By which a stored value is multiplied.
    """
    figure.canvas.draw()
    height = axes.get_window_extent().height / figure.dpi * 72
    ends = [axes.transLimits.transform((0, factor * points[-1].value))[1] * height for points in panel]
    for index, (label, points, at) in enumerate(zip(labels, panel, apart(ends, LINE, height), strict=True)):
        axes.annotate(
            label,
            xy=(points[-1].x, factor * points[-1].value),
            xytext=(1.06, at / height),
            textcoords="axes fraction",
            fontsize=SMALL,
            va="center",
            annotation_clip=False,
            parse_math=False,
            arrowprops={"arrowstyle": "-", "color": COLORS[index], "linewidth": 0.7, "shrinkA": 1, "shrinkB": 3},
        )


def apart(places: Sequence[float], distance: float, height: float) -> list[float]:
    """Moves places so far that neighbors have a distance, each group about where its members were.

    Args:
        places: From the bottom, in any order.
        distance: The least between two.
        height: The highest place that there is; more room is taken where it is needed.
    """
    order = sorted(range(len(places)), key=lambda index: places[index])
    groups: list[list[int]] = []
    starts: list[float] = []
    for index in order:
        groups.append([index])
        starts.append(places[index])
        while len(groups) > 1 and starts[-2] + distance * len(groups[-2]) > starts[-1]:
            merged = groups[-2] + groups[-1]
            middle = sum(places[one] for one in merged) / len(merged)
            groups[-2:], starts[-2:] = [merged], [middle - distance * (len(merged) - 1) / 2]
            last = max(0.0, height - distance * (len(merged) - 1))
            starts[-1] = min(max(starts[-1], 0.0), last)
    moved = [0.0] * len(places)
    for group, start in zip(groups, starts, strict=True):
        for step, index in enumerate(group):
            moved[index] = start + step * distance
    return moved


def columns_of_legend(labels: Sequence[str], panels: int) -> int:
    """How many columns a legend below so many panels has.

    Args:
        labels: Of the lines.
        panels: How many panels are side by side.
    """
    return max(1, min(len(labels), int(WIDTH * panels / (0.45 + 0.055 * max(map(len, labels))))))


def legend_rows(labels: Sequence[str], panels: int) -> int:
    """How many rows a legend has.

    Args:
        labels: Of the lines.
        panels: How many panels are side by side.
    """
    return math.ceil(len(labels) / columns_of_legend(labels, panels))


def draw_legend(figure: Figure, labels: Sequence[str], handles: Mapping[str, Any], panels: int) -> None:
    """One legend below all panels.

    Args:
        figure: The figure.
        labels: Of the lines, in their order.
        handles: What was drawn for each.
        panels: How many panels there are.
    """
    shown = [label for label in labels if label in handles]
    legend = figure.legend(
        [handles[label] for label in shown],
        # A label that begins with an underscore would not be shown.
        [f" {label}" if label.startswith("_") else label for label in shown],
        loc="outside lower center",
        ncols=columns_of_legend(labels, panels),
        fontsize=SMALL,
        frameon=False,
        borderaxespad=0.1,
        columnspacing=1.2,
        handlelength=2.2,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
