"""The figure of a comparison: one panel for each metric, one line or bar for each method."""

import math
from collections.abc import Sequence
from textwrap import fill
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, ScalarFormatter

from lightning_edit.commands.comparison.bars import draw_bars
from lightning_edit.commands.comparison.labels import draw_legend, has_room, label_ends, legend_rows
from lightning_edit.commands.comparison.lines import Axis, Line, Point, points_of
from lightning_edit.commands.comparison.quantities import quantity
from lightning_edit.commands.comparison.style import (
    COLORS,
    DPI,
    HEIGHT,
    LONGEST,
    MARKERS,
    MOST_BARS,
    MOST_TICKS,
    NORMAL,
    STYLES,
    WIDTH,
    X_TITLES,
    plain,
    whole_percent,
)


def draw(lines: Sequence[Line], metrics: Sequence[str], x: Axis, zoom: bool = False) -> Figure:
    """Draws a panel for each metric side by side, each as wide as a paper's column.

    Lines are labeled where they end if there is room, else in one legend below. Where all points are at one place, as
    in a sweep or where nothing was measured on the way, there are bars.

    Args:
        lines: What to draw; a line that lacks a metric is left out of its panel.
        metrics: Names of figures.
        x: What the points are drawn against.
        zoom: Whether axes are only as long as the figures need; else those of percentages go from 0 to 100.
    """
    labels = [line.label for line in lines]
    panels = [[points_of(line, metric, x) for line in lines] for metric in metrics]
    ends = {points[-1].x for panel in panels for points in panel if points}
    if len(lines) > 1 and len(ends) == 1 and all(len(_measured(points)) <= 1 for panel in panels for points in panel):
        return draw_bars(labels, metrics, [[points[-1:] for points in panel] for panel in panels], zoom)
    direct = has_room(labels, panels)
    below = 0 if direct else legend_rows(labels, len(panels))
    percent = not zoom and {quantity(metric).unit for metric in metrics} == {"%"}
    figure = Figure(figsize=(WIDTH * len(panels), HEIGHT + 0.15 * below), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    handles: dict[str, Any] = {}
    places = sorted({point.x for panel in panels for points in panel for point in points})
    all_axes = figure.subplots(1, len(panels), sharex=True, sharey=percent, squeeze=False)[0]
    for axes, metric, panel in zip(all_axes, metrics, panels, strict=True):
        for index, (label, points) in enumerate(zip(labels, panel, strict=True)):
            if points:
                handles[label] = _draw_line(axes, points, index, quantity(metric).factor)
        _label(axes, metric, x, above=len(panels) > 1)
        _scale(axes, places)
        if not zoom:
            beside = panels if percent else [panel]
            whole_percent(axes.set_ylim, metric, [point for one in beside for points in one for point in points])
    if direct:
        label_ends(figure, all_axes[-1], labels, panels[-1], quantity(metrics[-1]).factor)
    else:
        draw_legend(figure, labels, handles, len(panels))
    return figure


def _measured(points: Sequence[Point]) -> list[Point]:
    """The points of an edited model."""
    return [point for point in points if point.x > 0]


def _label(axes: Axes, metric: str, x: Axis, above: bool) -> None:
    axes.set_xlabel(X_TITLES[x], fontsize=NORMAL)
    # Beside a panel that is not the first, a name would seem to belong to the one before.
    say = axes.set_title if above else axes.set_ylabel
    say(fill(quantity(metric).heading, LONGEST), fontsize=NORMAL, parse_math=False)
    plain(axes)


def _draw_line(axes: Axes, points: Sequence[Point], index: int, factor: float) -> Any:
    color = COLORS[index % len(COLORS)]
    places, values = [point.x for point in points], [factor * point.value for point in points]
    errors = [math.nan if point.stderr is None else factor * point.stderr for point in points]
    known = any(point.stderr is not None for point in points)
    many = len(points) > MOST_BARS
    if known and many:
        low = [value - error for value, error in zip(values, errors, strict=True)]
        high = [value + error for value, error in zip(values, errors, strict=True)]
        axes.fill_between(places, low, high, color=color, alpha=0.18, linewidth=0)
    return axes.errorbar(
        places,
        values,
        yerr=errors if known and not many else None,
        color=color,
        marker=MARKERS[index % len(MARKERS)],
        linestyle=STYLES[index // len(COLORS) % len(STYLES)],
        linewidth=1.2,
        markersize=2.5 if many else 4,
        elinewidth=0.8,
        capsize=1.8,
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
