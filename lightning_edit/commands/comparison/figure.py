"""The figure of a comparison: one panel for each metric, one line for each method."""

import math
from collections.abc import Sequence
from textwrap import fill
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, ScalarFormatter

from lightning_edit.commands.comparison.lines import Axis, Line, Point, points_of
from lightning_edit.commands.comparison.quantities import quantity

# Okabe and Ito's palette, told apart by color-blind readers too; its yellow is too pale for a line.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
STYLES = ("-", "--", ":")
WIDTH, HEIGHT, DPI = 3.5, 2.7, 150
SMALL, NORMAL = 8, 9
MOST_TICKS = 7
LONGEST = 32
X_TITLES = {"edits": "number of edits", "batch_size": "batch size (edits per update)"}


def draw(lines: Sequence[Line], metrics: Sequence[str], x: Axis) -> Figure:
    """Draws a panel for each metric side by side, each as wide as a paper's column, with one legend below.

    Where all points are at one place, as in a sweep, the labels take the place of the x axis's numbers.

    Args:
        lines: What to draw; a line that lacks a metric is left out of its panel.
        metrics: Names of figures.
        x: What the points are drawn against.
    """
    labels = [line.label for line in lines]
    panels = [[points_of(line, metric, x) for line in lines] for metric in metrics]
    if len(lines) > 1 and len({point.x for panel in panels for points in panel for point in points}) == 1:
        return _draw_ranking(labels, metrics, panels)
    columns = max(1, min(len(labels), int(WIDTH * len(panels) / (0.35 + 0.07 * max(map(len, labels))))))
    rows = math.ceil(len(labels) / columns)
    figure = Figure(figsize=(WIDTH * len(panels), HEIGHT + 0.17 * rows), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    handles: dict[str, Any] = {}
    places = sorted({point.x for panel in panels for points in panel for point in points})
    all_axes = figure.subplots(1, len(panels), sharex=True, squeeze=False)[0]
    for axes, metric, panel in zip(all_axes, metrics, panels, strict=True):
        for index, (label, points) in enumerate(zip(labels, panel, strict=True)):
            if points:
                handles[label] = _draw_line(axes, points, index, quantity(metric).factor)
        _label(axes, metric, x)
        _scale(axes, places)
    shown = [label for label in labels if label in handles]
    legend = figure.legend(
        [handles[label] for label in shown],
        # A label that begins with an underscore would not be shown.
        [f" {label}" if label.startswith("_") else label for label in shown],
        loc="outside lower center",
        ncols=columns,
        fontsize=SMALL,
        frameon=False,
        borderaxespad=0.1,
        columnspacing=1.2,
        handlelength=2.2,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def _draw_ranking(labels: Sequence[str], metrics: Sequence[str], panels: Sequence[Any]) -> Figure:
    names = 0.065 * max(map(len, labels))
    figure = Figure(figsize=(WIDTH * len(panels) + names, 0.8 + 0.2 * len(labels)), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, metric, panel in zip(all_axes, metrics, panels, strict=True):
        shown, factor = quantity(metric), quantity(metric).factor
        for row, points in enumerate(panel):
            for point in points:
                error = None if point.stderr is None else factor * point.stderr
                axes.errorbar(
                    factor * point.value, row, xerr=error, color=COLORS[0], marker="o", markersize=4, capsize=2
                )
        axes.set_xlabel(fill(shown.heading, LONGEST), fontsize=NORMAL, parse_math=False)
        axes.set_yticks(range(len(labels)), labels, parse_math=False)
        _plain(axes)
    all_axes[0].invert_yaxis()
    return figure


def _plain(axes: Axes) -> None:
    axes.tick_params(labelsize=SMALL)
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _label(axes: Axes, metric: str, x: Axis) -> None:
    axes.set_xlabel(X_TITLES[x], fontsize=NORMAL)
    axes.set_ylabel(fill(quantity(metric).heading, LONGEST), fontsize=NORMAL, parse_math=False)
    _plain(axes)


def _draw_line(axes: Axes, points: Sequence[Point], index: int, factor: float) -> Any:
    errors = [math.nan if point.stderr is None else factor * point.stderr for point in points]
    return axes.errorbar(
        [point.x for point in points],
        [factor * point.value for point in points],
        yerr=errors if any(point.stderr is not None for point in points) else None,
        color=COLORS[index % len(COLORS)],
        marker=MARKERS[index % len(MARKERS)],
        linestyle=STYLES[index // len(COLORS) % len(STYLES)],
        linewidth=1.3,
        markersize=4.5 if len(points) <= 10 else 3,
        elinewidth=0.9,
        capsize=2,
    )


def _scale(axes: Axes, places: Sequence[int]) -> None:
    """A logarithmic axis where the places span more than a decade; the place 0 stays on it, before the first."""
    positive = [place for place in places if place > 0]
    logarithmic = bool(positive) and positive[-1] > 10 * positive[0]
    if logarithmic and places[0] == 0:
        axes.set_xscale("symlog", linthresh=positive[0], linscale=0.4)
    elif logarithmic:
        axes.set_xscale("log")
    if logarithmic or len(positive) == 1:
        axes.xaxis.set_major_locator(FixedLocator([*places[: places[0] == 0], *_ticks(positive)]))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(MOST_TICKS, integer=True))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(ScalarFormatter())


def _ticks(places: Sequence[int]) -> list[int]:
    """Those of the rising places that leave room for each other's numbers on a logarithmic axis."""
    apart = max(2.0, (places[-1] / places[0]) ** (1 / MOST_TICKS))
    chosen = [places[-1]]
    for place in reversed(places):
        if place * apart <= chosen[-1]:
            chosen.append(place)
    return chosen[::-1]
