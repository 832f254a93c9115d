"""How the figures of a comparison look."""

from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.axes import Axes

from lightning_edit.commands.comparison.lines import Point
from lightning_edit.commands.comparison.quantities import quantity

# Okabe and Ito's palette, told apart by color-blind readers too; its yellow is too pale for a line.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
STYLES = ("-", "--", ":")
# A column of a two-column paper, in inches.
WIDTH, HEIGHT, DPI = 3.3, 2.5, 300
SMALL, NORMAL = 7, 8
MOST_TICKS = 7
LONGEST = 40
# Of more points, error bars would hide each other.
MOST_BARS = 10
X_TITLES = {"edits": "number of edits", "batch_size": "batch size (edits per update)"}
# How far an axis of percentages goes beyond its ends, so that a point there is whole.
MARGIN = 2.5


def whole_percent(set_limits: Callable[[float, float], Any], metric: str, points: Sequence[Point]) -> None:
    """Makes the axis of a percentage go from 0 to 100, or from -100 where there are differences below 0.

    Args:
        set_limits: Sets both ends of the axis.
        metric: What is on it.
        points: What is drawn.
    """
    if quantity(metric).unit == "%":
        lowest = -100 if any(point.value < 0 for point in points) else 0
        set_limits(lowest - MARGIN, 100 + MARGIN)


def plain(axes: Axes) -> None:
    """The style of all panels.

    Args:
        axes: A panel.
    """
    axes.tick_params(labelsize=SMALL)
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
