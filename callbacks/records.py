"""What was measured of each record, so that no run must be repeated to answer a new question."""

import logging
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback

from lightning_edit.errors import EditError
from lightning_edit.messages import quoted
from lightning_edit.run.edit_callback import EditingRun
from lightning_edit.storage.atomic import atomic_path
from lightning_edit.storage.numbers import to_json
from lightning_edit.storage.run_folder import run_folder
from lightning_edit.storage.user.json import json_lines

logger = logging.getLogger(__name__)


class RecordResults(Callback):
    """Appends a line for each record and stage (``before``, ``after``) to ``records.jsonl`` in the run's folder.

    A line holds the record's prompts with the log-probabilities of both answers (in nats, length-normalized), what was
    generated, and so on; see `lightning_edit.metrics.evaluate`.
    """

    def __init__(self) -> None:
        self._path = Path()

    def on_test_start(self, trainer: Trainer, pl_module: EditingRun) -> None:
        """Makes room: what an earlier test in the same folder said of this stage is dropped."""
        self._path = run_folder(trainer) / "records.jsonl"
        if not trainer.is_global_zero or trainer.fast_dev_run:
            return
        kept = _before(self._path) if pl_module.loop.edits_written else []
        with atomic_path(self._path) as scratch:
            scratch.write_text("".join(map(_line, kept)), encoding="utf-8")

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: EditingRun, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Writes the records of a batch."""
        if not trainer.is_global_zero or trainer.fast_dev_run:
            return
        stage = {"stage": "after" if pl_module.loop.edits_written else "before", "edits": pl_module.loop.edits_written}
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(_line({**stage, **record}) for record in outputs["records"])


def _line(record: dict[str, Any]) -> str:
    return to_json(record, ensure_ascii=False) + "\n"


def _before(path: Path) -> list[dict[str, Any]]:
    """The records of the unedited model; of a damaged file those before the damage, as the new ones must be written."""
    kept: list[dict[str, Any]] = []
    if not path.is_file() or not path.stat().st_size:
        return kept
    try:
        for record, where in json_lines(path):
            if not isinstance(record, dict):
                raise EditError(f"{where}: expected a record, got {quoted(record)}.")
            if record.get("stage") == "before":
                kept.append(record)
    except EditError as error:
        logger.warning("What follows there is left out: %s", error)
    return kept
