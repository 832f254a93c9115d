"""Weights & Biases, also offline: tables, pictures, and the report both to read and to keep."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_edit.loggers.adapter import LoggerAdapter
from lightning_edit.loggers.content import Setting, Table


class WandbAdapter(LoggerAdapter):
    """The logger of W&B; see `LoggerAdapter`."""

    keeps_files = shows_runs = True

    @property
    def identity(self) -> str:
        """The id of the run."""
        return str(self.logger.experiment.id)

    def distribution(self, name: str, values: Any, step: int) -> None:
        """Logs a histogram."""
        import wandb

        room, _, rest = name.partition("/")
        self.logger.log_metrics({f"{room}_each/{rest}": wandb.Histogram(values.cpu().numpy())}, step)

    def text(self, name: str, markdown: str, step: int) -> None:
        """Puts a text into the run's notes, unless it has some."""
        run = self.logger.experiment
        run.notes = run.notes or markdown

    def table(self, table: Table, step: int) -> None:
        """Logs a table."""
        self.logger.log_table(
            table.name, columns=list(table.columns), data=[list(row) for row in table.rows], step=step
        )

    def picture(self, name: str, png: bytes, step: int) -> None:
        """Logs a picture."""
        from PIL import Image

        self.logger.log_image(name, [Image.open(io.BytesIO(png))], step)

    def page(self, path: Path) -> None:
        """Shows the report, and keeps it as an artifact."""
        import wandb

        run = self.logger.experiment
        run.log({"report": wandb.Html(path.read_text(encoding="utf-8"), inject=False)})
        artifact = wandb.Artifact(f"report-{run.id}", type="report", description="The run as one page")
        artifact.add_file(str(path))
        run.log_artifact(artifact)

    def settings(self, settings: Mapping[str, Setting], figures: Sequence[str], step: int) -> None:
        """Puts the settings of the data and the method's name beside those that Lightning gives."""
        self.logger.experiment.config.update({"settings": dict(settings)}, allow_val_change=True)
