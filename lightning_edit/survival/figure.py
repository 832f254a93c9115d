"""The figure of what survives: bars for each variant, in the style of comparisons."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from lightning_edit.commands.comparison.bars import draw_bars
from lightning_edit.commands.comparison.figure_file import SETTINGS
from lightning_edit.commands.comparison.lines import Point
from lightning_edit.storage.atomic import atomic_path
from lightning_edit.storage.own_outputs import METADATA
from lightning_edit.survival.results import Result
from lightning_edit.survival.table import edited_of, shown_figures, still_said

STILL = "edits_still_said"
# More panels make the figure too wide to read.
LEFT_OUT = ("generated_paraphrase", "efficacy_score", "efficacy_accuracy", "S")


def draw(results: Sequence[Result]) -> Figure:
    """Draws the variants that were measured.

    Args:
        results: In the order of the rows.
    """
    measured, edited = [result for result in results if result.answers], edited_of(results)
    metrics = [name for name in shown_figures(measured) if name not in LEFT_OUT]
    panels = [[_point(result.figure(name), result, name) for result in measured] for name in metrics]
    said = [[Point(0, _share(result, edited))] for result in measured]
    return draw_bars([result.title for result in measured], [STILL, *metrics], [said, *panels], zoom=False)


def _share(result: Result, edited: Result | None) -> float:
    """The share of the edited model's edits that are still said; without that model, of all edits."""
    kept, of = still_said(result, edited) or (sum(result.said), len(result.said))
    return kept / of if of else 0.0


def _point(value: float | None, result: Result, name: str) -> list[Point]:
    return [] if value is None else [Point(0, value, result.figure(f"{name}_stderr"))]


def write_figure(path: Path, results: Sequence[Result]) -> None:
    """Draws and writes the figure.

    Args:
        path: A PNG, PDF or SVG file.
        results: See `draw`.
    """
    kind = path.suffix.lower().removeprefix(".")
    with rc_context(SETTINGS), atomic_path(path) as scratch:
        draw(results).savefig(scratch, format=kind, metadata=METADATA[kind])
