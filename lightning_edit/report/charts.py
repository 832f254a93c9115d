"""The figures of one run as pictures: before and after of each share, and how the run went on, edit by edit."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lightning_edit.commands.comparison.figure import COLORS, MARKERS, STYLES
from lightning_edit.messages import counted, printable, readable
from lightning_edit.report.figures import Shown
from lightning_edit.report.svg import GRID, PAGE, TEXT

# Inches; a page scales them to its width, on a phone to about the size of its text.
WIDTH, HEIGHT, ROW, MARGIN = 3.3, 2.2, 0.4, 0.55
SMALL = 9
# Names of lines that fit beside each other in the legend.
LONGEST = 13
MOST_LINES = 6
# Characters across a picture.
WIDEST = 44


@dataclass(frozen=True)
class Line:
    """A curve.

    Args:
        name: What the legend calls it.
        points: Number of edits, value and standard error (None if unknown), in rising order.
    """

    name: str
    points: tuple[tuple[int, float, float | None], ...]


@dataclass(frozen=True)
class Panel:
    """A picture of curves over the number of edits.

    Args:
        title: Its heading.
        meaning: What to look for, in a sentence.
        unit: Of the values.
        lines: The curves.
        top: Where the axis of percentages ends, at least; 100 shows all of it. None for other values.
    """

    title: str
    meaning: str
    unit: str
    lines: tuple[Line, ...]
    top: float | None

    @property
    def words(self) -> str:
        """What the curves show, for those who cannot see them."""
        sign = "" if self.top is None else " %"
        parts = [
            f"{line.name}: {readable(line.points[0][1], 4)}{sign} after {counted(line.points[0][0], 'edit')}, "
            f"{readable(line.points[-1][1], 4)}{sign} after {line.points[-1][0]:,}"
            for line in self.lines
        ]
        return f"{self.title}, over the number of edits. {'; '.join(parts)}."


def draw_shares(rows: Sequence[Shown]) -> Figure:
    """Draws each share before (a ring) and after (a dot, with its standard error) on an axis from 0 to 100 %.

    Args:
        rows: The figures.
    """
    figure = Figure(figsize=(WIDTH, MARGIN + ROW * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for place, one in enumerate(rows):
        after = 100 * one.after
        if one.before is not None:
            before = 100 * one.before
            axes.plot([before, after], [place, place], color=COLORS[0], linewidth=1, zorder=2)
            # Larger, so that it is a ring around the other where both are the same.
            axes.plot(before, place, "o", color=COLORS[0], markerfacecolor=PAGE, markersize=8, zorder=3)
        error = None if not one.error else 100 * one.error
        axes.errorbar(after, place, xerr=error, color=COLORS[0], marker="o", markersize=4.5, capsize=3, zorder=4)
        title = axes.text(-2, place - 0.2, _fitting(one.title), fontsize=SMALL, va="bottom", parse_math=False)
        title.set_in_layout(False)
    axes.set_xlim(-4, 104)
    axes.set_ylim(len(rows) - 0.5, -0.8)
    axes.set_yticks([])
    axes.set_xlabel("%, 100 is best", fontsize=SMALL)
    _plain(axes, "x")
    axes.spines["left"].set_visible(False)
    return figure


def draw_panel(panel: Panel) -> Figure:
    """Draws curves with their standard errors over the number of edits.

    Args:
        panel: What to draw.
    """
    columns = 2 if max(len(line.name) for line in panel.lines) <= LONGEST else 1
    rows = -(-len(panel.lines) // columns)
    figure = Figure(figsize=(WIDTH, HEIGHT + 0.17 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    handles = [_draw_line(axes, line, number) for number, line in enumerate(panel.lines)]
    axes.set_xlabel("edits written", fontsize=SMALL)
    axes.set_ylabel(panel.unit, fontsize=SMALL, parse_math=False)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if panel.top is not None:
        highest = max(value + (error or 0.0) for line in panel.lines for _, value, error in line.points)
        top = max(panel.top, highest)
        axes.set_ylim(-0.04 * top, 1.04 * top)
    _plain(axes, "both")
    legend = figure.legend(
        handles,
        [_fitting(line.name).lstrip("_") for line in panel.lines],
        loc="outside lower left",
        ncols=columns,
        fontsize=SMALL,
        frameon=False,
        borderaxespad=0.1,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def _draw_line(axes: Axes, line: Line, number: int) -> Any:
    errors = [0.0 if error is None else error for _, _, error in line.points]
    return axes.errorbar(
        [place for place, _, _ in line.points],
        [value for _, value, _ in line.points],
        yerr=errors if any(errors) else None,
        color=COLORS[number % MOST_LINES],
        marker=MARKERS[number % len(MARKERS)],
        linestyle=STYLES[number // MOST_LINES % len(STYLES)],
        linewidth=1.4,
        markersize=4.5 if len(line.points) <= 20 else 2.5,
        elinewidth=0.9,
        capsize=2,
    )


def _fitting(name: str) -> str:
    """A name that fits the width of a picture: of a longer one the beginning and the end, where others differ."""
    line = " ".join(printable(name).split())
    return line if len(line) <= WIDEST else f"{line[: WIDEST - 18]}…{line[-17:]}"


def _plain(axes: Axes, grid: Any) -> None:
    axes.tick_params(labelsize=SMALL, color=TEXT)
    axes.grid(axis=grid, color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
