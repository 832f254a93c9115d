"""What was measured of each record, so that no run must be repeated to answer a new question."""

import json
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback

from lightning_edit.run.edit_callback import EditingRun
from lightning_edit.storage.atomic import atomic_path
from lightning_edit.storage.numbers import to_json
from lightning_edit.storage.run_folder import run_folder


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
        kept = []
        if pl_module.loop.edits_written and self._path.is_file():
            # Not splitlines, which also splits at characters that JSON leaves as they are.
            lines = self._path.read_text(encoding="utf-8").split("\n")
            kept = [line + "\n" for line in lines if line and json.loads(line)["stage"] == "before"]
        with atomic_path(self._path) as scratch:
            scratch.write_text("".join(kept), encoding="utf-8")

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: EditingRun, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Writes the records of a batch."""
        if not trainer.is_global_zero or trainer.fast_dev_run:
            return
        stage = {"stage": "after" if pl_module.loop.edits_written else "before", "edits": pl_module.loop.edits_written}
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(to_json({**stage, **record}, ensure_ascii=False) + "\n" for record in outputs["records"])
