"""The figures of one run as pictures: before and after of each share, and how the run went on, edit by edit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lightning_edit.commands.comparison.figure import COLORS, MARKERS, STYLES
from lightning_edit.report.figures import Shown
from lightning_edit.report.svg import GRID, PAGE, TEXT

# Inches; a page scales them to its width, on a phone to about the size of its text.
WIDTH, HEIGHT, ROW, MARGIN = 3.6, 2.3, 0.33, 0.55
SMALL = 9
LONGEST = 26
MOST_LINES = 6


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
        share: Whether the values are percentages, drawn from 0 to 100.
    """

    title: str
    meaning: str
    unit: str
    lines: tuple[Line, ...]
    share: bool

    @property
    def words(self) -> str:
        """What the curves show, for those who cannot see them."""
        sign = " %" if self.share else ""
        parts = [
            f"{line.name}: {line.points[0][1]:.4g}{sign} after {line.points[0][0]:,} edits, "
            f"{line.points[-1][1]:.4g}{sign} after {line.points[-1][0]:,}"
            for line in self.lines
        ]
        return f"{self.title}, over the number of edits. {'; '.join(parts)}."


def draw_shares(groups: Mapping[str, Sequence[Shown]]) -> Figure:
    """Draws each share before (hollow) and after (filled, with its standard error) on an axis from 0 to 100 %.

    Args:
        groups: The figures.
    """
    rows = [one for shown in groups.values() for one in shown]
    figure = Figure(figsize=(WIDTH, MARGIN + ROW * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for place, one in enumerate(rows):
        after = 100 * one.after
        if one.before is not None:
            before = 100 * one.before
            axes.plot([before, after], [place, place], color=COLORS[0], linewidth=1, zorder=2)
            axes.plot(before, place, "o", color=COLORS[0], markerfacecolor=PAGE, markersize=6, zorder=3)
        error = None if not one.error else 100 * one.error
        axes.errorbar(after, place, xerr=error, color=COLORS[0], marker="o", markersize=6, capsize=3, zorder=4)
        axes.text(0, place - 0.3, one.title, fontsize=SMALL, va="bottom", color=TEXT, parse_math=False)
    axes.set_xlim(-3, 103)
    axes.set_ylim(len(rows) - 0.5, -0.95)
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
    rows = -(-len(panel.lines) // 2) if max(len(line.name) for line in panel.lines) <= LONGEST // 2 else len(panel.lines)
    figure = Figure(figsize=(WIDTH, HEIGHT + 0.17 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    handles = [_draw_line(axes, line, number) for number, line in enumerate(panel.lines)]
    axes.set_xlabel("edits written", fontsize=SMALL)
    axes.set_ylabel(panel.unit, fontsize=SMALL, parse_math=False)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if panel.share:
        axes.set_ylim(-4, 104)
    _plain(axes, "both")
    legend = figure.legend(
        handles,
        [fill(line.name.lstrip("_"), 40) for line in panel.lines],
        loc="outside lower left",
        ncols=2 if rows < len(panel.lines) else 1,
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


def _plain(axes: Axes, grid: Any) -> None:
    axes.tick_params(labelsize=SMALL, color=TEXT)
    axes.grid(axis=grid, color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
