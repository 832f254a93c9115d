"""What a run gives to a logger; here only what every logger of Lightning takes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_edit.loggers.content import Setting, Table


class LoggerAdapter:
    """One of the trainer's loggers, as a run uses it.

    A logger that can show more than figures has a subclass for it; whatever it cannot show is left out. Steps are
    numbers of edits, and for the losses of values numbers of optimization passes.

    Args:
        logger: One of Lightning's loggers.

    Attributes:
        keeps_files: Whether files can be given to it.
        shows_runs: Whether it can show what a run has done beyond its figures.
    """

    keeps_files = False
    shows_runs = False

    def __init__(self, logger: Any) -> None:
        self.logger = logger

    @property
    def identity(self) -> str | None:
        """By what name its store knows the run; None where the run's folder is where it writes."""
        return None

    def prepare(self) -> None:
        """Called before Lightning writes anything."""

    def know(self, tags: Sequence[str]) -> None:
        """Says which figures an earlier part of a resumed run has given to it.

        Args:
            tags: Their names.
        """

    def figures(self, figures: Mapping[str, float], step: int) -> None:
        """Takes figures.

        Args:
            figures: Numbers by name.
            step: What they are drawn against.
        """
        self.logger.log_metrics(dict(figures), step=step)

    def distribution(self, name: str, values: Any, step: int) -> None:
        """Takes the values of one figure over several edits.

        Args:
            name: The figure's.
            values: A tensor ``[edits]``.
            step: What they are drawn against.
        """

    def text(self, name: str, markdown: str, step: int) -> None:
        """Takes a text.

        Args:
            name: What it is called.
            markdown: The text.
            step: The number of edits.
        """

    def table(self, table: Table, step: int) -> None:
        """Takes a table.

        Args:
            table: The table.
            step: The number of edits.
        """

    def picture(self, name: str, png: bytes, step: int) -> None:
        """Takes a picture.

        Args:
            name: What it is called.
            png: The content of a PNG file.
            step: The number of edits.
        """

    def page(self, path: Path) -> None:
        """Takes the run's report.

        Args:
            path: An HTML file that needs no other.
        """

    def settings(self, settings: Mapping[str, Setting], figures: Sequence[str], step: int) -> None:
        """Takes the settings by which runs are told apart; those of the module Lightning gives to loggers itself.

        Args:
            settings: Under dotted names.
            figures: The names of the figures by which runs are compared.
            step: The number of edits.
        """
