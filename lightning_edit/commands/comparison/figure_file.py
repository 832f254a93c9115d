"""The figure of a comparison as a file, for a paper or a screen, and in TensorBoard."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context

from lightning_edit.commands.comparison.figure import draw
from lightning_edit.commands.comparison.lines import Axis, Line
from lightning_edit.commands.comparison.tensorboard import write_tensorboard
from lightning_edit.storage.atomic import atomic_path
from lightning_edit.storage.own_outputs import METADATA

# TrueType fonts, which journals ask for, and no random names: the same figure is the same file.
SETTINGS: Any = {"pdf.fonttype": 42, "ps.fonttype": 42, "svg.fonttype": "path", "svg.hashsalt": "lightning-edit"}


def write_figure(path: Path, lines: Sequence[Line], metrics: Sequence[str], x: Axis, zoom: bool) -> None:
    """Draws a figure and writes it.

    Args:
        path: A PNG, PDF or SVG file.
        lines: What to draw.
        metrics: Names of figures.
        x: What the points are drawn against.
        zoom: See `draw`.
    """
    kind = path.suffix.lower().removeprefix(".")
    with rc_context(SETTINGS):
        figure = draw(lines, metrics, x, zoom)
        with atomic_path(path) as scratch:
            figure.savefig(scratch, format=kind, metadata=METADATA[kind])
        picture = io.BytesIO()
        figure.savefig(picture, format="png")
    write_tensorboard(picture.getvalue(), figure, lines, metrics, x, path.parent / "comparison")
