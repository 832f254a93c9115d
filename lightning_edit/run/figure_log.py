"""Figures for all loggers; in TensorBoard each says what it means."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata

from lightning_edit.metrics.descriptions import description

SCALARS = SummaryMetadata.PluginData(plugin_name="scalars")


class FigureLog:
    """Gives figures to loggers, and to TensorBoard a description beside the first value of each."""

    def __init__(self) -> None:
        self._described: set[tuple[str, str]] = set()

    @rank_zero_only
    def write(self, loggers: Sequence[Any], figures: Mapping[str, float], step: int) -> None:
        """Writes figures.

        Args:
            loggers: Those of the trainer.
            figures: Numbers by name.
            step: What they are drawn against.
        """
        for logger in loggers:
            # A prefix of the user's own changes the names under which the figures are known.
            described = self._describe(logger, figures, step) if _has_charts(logger) else set()
            logger.log_metrics({name: value for name, value in figures.items() if name not in described}, step=step)

    def _describe(self, logger: TensorBoardLogger, figures: Mapping[str, float], step: int) -> set[str]:
        """Writes the figures that have a description and were never written; returns their names."""
        written = set()
        for name, value in figures.items():
            place, text = (logger.log_dir, name), description(name)
            if text and place not in self._described:
                metadata = SummaryMetadata(summary_description=text, plugin_data=SCALARS)
                summary = Summary(value=[Summary.Value(tag=name, simple_value=float(value), metadata=metadata)])
                # SummaryWriter.add_scalar takes no description.
                logger.experiment._get_file_writer().add_summary(summary, step)
                self._described.add(place)
                written.add(name)
        return written


def _has_charts(logger: Any) -> bool:
    return isinstance(logger, TensorBoardLogger) and not logger._prefix
