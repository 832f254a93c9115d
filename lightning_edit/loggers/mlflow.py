"""MLflow: figures and settings of a run in a store, texts, tables, pictures and the report among its artifacts."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_edit.loggers.adapter import LoggerAdapter
from lightning_edit.loggers.content import Setting, Table

LONGEST = 250
# MLflow takes so many at once.
AT_ONCE = 100


class MLflowAdapter(LoggerAdapter):
    """The logger of MLflow; see `LoggerAdapter`."""

    keeps_files = shows_runs = True

    @property
    def identity(self) -> str:
        """The id of the run."""
        return self._run

    def text(self, name: str, markdown: str, step: int) -> None:
        """Keeps a text as an artifact."""
        self._client.log_text(self._run, markdown, f"{name}.md")

    def table(self, table: Table, step: int) -> None:
        """Keeps a table as an artifact that MLflow can show."""
        names = {entry.path for entry in self._client.list_artifacts(self._run, table.name.rpartition("/")[0] or None)}
        # MLflow would add the rows to those of a table with the same name.
        name = next(name for name in _numbered(table.name) if name not in names)
        columns = {column: [row[at] for row in table.rows] for at, column in enumerate(table.columns)}
        self._client.log_table(self._run, columns, name)

    def picture(self, name: str, png: bytes, step: int) -> None:
        """Keeps a picture as an artifact."""
        from PIL import Image

        self._client.log_image(self._run, Image.open(io.BytesIO(png)), f"{name}.png")

    def page(self, path: Path) -> None:
        """Keeps the report as an artifact."""
        self._client.log_artifact(self._run, str(path))

    def settings(self, settings: Mapping[str, Setting], figures: Sequence[str], step: int) -> None:
        """Keeps the settings under ``settings/``, beside those of the module that Lightning gives."""
        from mlflow.entities import Param

        # A value that is there already can never be changed.
        known = self._client.get_run(self._run).data.params
        new = {f"settings/{name}": str(value)[:LONGEST] for name, value in settings.items()}
        params = [Param(name, value) for name, value in new.items() if name not in known]
        for start in range(0, len(params), AT_ONCE):
            self._client.log_batch(self._run, params=params[start : start + AT_ONCE])

    @property
    def _client(self) -> Any:
        return self.logger.experiment

    @property
    def _run(self) -> str:
        return str(self.logger.run_id)


def _numbered(name: str) -> Any:
    yield f"{name}.json"
    number = 1
    while True:
        number += 1
        yield f"{name}-{number}.json"
