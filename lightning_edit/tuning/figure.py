"""The figure of a tuning: efficacy against collateral, what no other trial beats in both, and the point chosen."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lightning_edit.tuning.bench import Trial
from lightning_edit.tuning.search import frontier

# Okabe and Ito's palette, told apart by color-blind readers too.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#888888")
SMALL, NORMAL, DPI = 8, 9, 150
SIZE, MOST, LEAST = (5.2, 3.6), 34, 8


def draw(trials: Sequence[Trial], chosen: Trial, names: dict[tuple[int, ...], str]) -> Figure:
    """Draws all trials; the more edits a trial had, the larger its mark.

    Args:
        trials: The trials.
        chosen: The one of the preset.
        names: How the legend calls the layers of a point.
    """
    figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for number, (layers, name) in enumerate(names.items()):
        those = [trial for trial in trials if trial.point.layers == layers and trial.score.efficacy]
        if those:
            axes.scatter(
                *_places(those),
                s=[LEAST + (MOST - LEAST) * trial.edits / chosen.edits for trial in those],
                c=COLORS[number % len(COLORS)],
                alpha=0.7,
                linewidths=0,
                label=name,
            )
    axes.step(*_places(frontier(trials)), where="post", color="#666666", linewidth=1, label="frontier")
    axes.scatter(*_places([chosen]), marker="*", s=160, c="#FFFFFF", edgecolors="#000000", zorder=3, label="chosen")
    _label(axes, f"larger: more edits (up to {chosen.edits})")
    return figure


def _places(trials: Sequence[Trial]) -> tuple[list[float], list[float]]:
    return [100 * (trial.score.collateral or 0.0) for trial in trials], [100 * trial.score.efficacy for trial in trials]


def _label(axes: Axes, title: str) -> None:
    axes.set_xlabel("other answers kept (%)", fontsize=NORMAL)
    axes.set_ylabel("says the new answer (%)", fontsize=NORMAL)
    axes.tick_params(labelsize=SMALL)
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    legend = axes.legend(fontsize=SMALL, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), title=title)
    legend.get_title().set_fontsize(SMALL)
