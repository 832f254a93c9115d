"""Methods one below the other, where there is one figure of each: bars, or points on a shorter axis."""

from collections.abc import Sequence
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lightning_edit.commands.comparison.lines import Point
from lightning_edit.commands.comparison.quantities import Quantity, quantity
from lightning_edit.commands.comparison.style import COLORS, DPI, LONGEST, NORMAL, SMALL, WIDTH, plain, whole_percent

LONGEST_NAME = 30


def draw_bars(
    labels: Sequence[str], metrics: Sequence[str], panels: Sequence[Sequence[Sequence[Point]]], zoom: bool
) -> Figure:
    """Draws a panel for each metric, in each a row for each method.

    Args:
        labels: Of the methods.
        metrics: Names of figures.
        panels: For each metric and method one point, or none.
        zoom: Whether the axes are only as long as the figures need; a bar must begin at 0, so there are points then.
    """
    names = [fill(label, LONGEST_NAME) for label in labels]
    rows = sum(1 + name.count("\n") for name in names)
    figure = Figure(figsize=(WIDTH * len(panels), 0.62 + 0.19 * rows), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, metric, panel in zip(all_axes, metrics, panels, strict=True):
        shown = quantity(metric)
        for row, points in enumerate(panel):
            for point in points:
                _draw_row(axes, row, point, shown, zoom)
        axes.set_xlabel(fill(shown.heading, LONGEST), fontsize=NORMAL, parse_math=False)
        axes.set_yticks(range(len(names)), names, parse_math=False)
        plain(axes)
        axes.grid(visible=zoom, axis="y")
        if zoom:
            axes.xaxis.set_major_locator(MaxNLocator(5))
        else:
            whole_percent(axes.set_xlim, metric, [point for points in panel for point in points])
            if shown.unit == "%":
                axes.set_xlim(left=min(0.0, axes.get_xlim()[0] + 2.5), right=100)
    all_axes[0].invert_yaxis()
    return figure


def _draw_row(axes: Axes, row: int, point: Point, shown: Quantity, zoom: bool) -> None:
    value = shown.factor * point.value
    error = None if point.stderr is None else shown.factor * point.stderr
    if zoom:
        axes.errorbar(value, row, xerr=error, color=COLORS[0], marker="o", markersize=4, capsize=2)
        return
    style = {"elinewidth": 0.8, "capsize": 1.8, "ecolor": "#333333"}
    axes.barh(row, value, height=0.66, color=COLORS[0], alpha=0.75, xerr=error, error_kw=style)
    text = shown.text(point.value, point.stderr)
    # Beside the longest bar that there can be, so that numbers are one below the other.
    axes.text(1.02, row, text, transform=axes.get_yaxis_transform(), fontsize=SMALL, va="center", parse_math=False)
