"""A comparison for TensorBoard, written by its own writer, which needs no torch."""

import time
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from lightning_edit.commands.comparison.lines import Axis, Line, points_of

SUFFIX = ".comparison"


def write_tensorboard(
    picture: bytes, figure: Figure, lines: Sequence[Line], metrics: Sequence[str], x: Axis, folder: Path
) -> None:
    """Writes the figure and its points, a point's place being the step; an earlier comparison there is replaced.

    Args:
        picture: The figure as PNG.
        figure: The figure.
        lines: What it shows.
        metrics: Names of figures.
        x: What they are drawn against.
        folder: Where to.
    """
    earlier = list(folder.glob(f"events.*{SUFFIX}"))
    writer = EventFileWriter(str(folder), filename_suffix=SUFFIX)
    writer.add_event(_event(0, Summary.Value(tag="comparison", image=_image(picture, figure))))
    for metric in metrics:
        for line in lines:
            for point in points_of(line, metric, x):
                value = Summary.Value(tag=f"{metric}/{line.label}", simple_value=point.value)
                writer.add_event(_event(point.x, value))
    writer.close()
    for file in earlier:
        file.unlink()


def _event(step: int, value: Summary.Value) -> Event:
    return Event(wall_time=time.time(), step=step, summary=Summary(value=[value]))


def _image(picture: bytes, figure: Figure) -> Summary.Image:
    width, height = figure.canvas.get_width_height()
    return Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=picture)
