"""A long stream of edits by gradient values: whether memory, seconds of an update and files stay what they were.

A whole run of the library on the embedded model, with its checkpoints, its table of updates and the file of each
update, and measurements of a few answers. Each tenth of the stream is a row.
"""

import statistics
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger
from rich.table import Table

from lightning_edit import EditingModule, EditRequest, Gradient
from lightning_edit.callbacks import EditCheckpoint, Watch
from lightning_edit.datamodules import EditDataModule, PreservationText
from lightning_edit.run.edit_callback import EditCallback, EditingRun
from lightning_edit.storage.checkpoints.checkpoint_file import checkpoints
from lightning_edit.storage.run_folder import run_folder
from tests.benchmarks.material import Choice, invented_requests
from tests.benchmarks.measure import held_memory
from tests.benchmarks.show import Row, Run, mebibytes, number, table_of

MODELS = ("tiny",)
FULL, QUICK = 100_000, 200
# Of the edits in an update, as one of so many.
UPDATES, TENTHS = 100, 10


class Stream(EditDataModule):
    """Edits of people who do not exist, as many as are wanted."""

    def __init__(self, edits: int, batch_size: int, preservation: PreservationText | None = None) -> None:
        super().__init__(batch_size=batch_size, preservation=preservation)
        self.edits = edits

    def load_requests(self) -> Iterator[EditRequest]:
        """The edits."""
        return iter(invented_requests(self.edits))


class Gauge(EditCallback):
    """Notes after each update how long it took, what the process holds, and how large the run's newest files are."""

    called_last = True

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._before: dict[str, float] = {}
        self._since = self._processor = 0.0

    def on_train_start(self, trainer: Any, pl_module: EditingRun) -> None:
        """Starts the clock."""
        self._begin(pl_module)

    def _begin(self, module: EditingRun) -> None:
        self._since, self._processor, self._before = time.perf_counter(), time.process_time(), dict(module.seconds)

    def on_update_kept(self, trainer: Any, pl_module: EditingRun) -> None:
        """Notes the update."""
        now, spent, folder = time.perf_counter(), dict(pl_module.seconds), run_folder(trainer)
        # Beside other work on the machine, the time on the processor says more than the clock.
        busy = time.process_time() - self._processor
        parts = {name: spent[name] - self._before.get(name, 0.0) for name in ("values", "solve", "checkpoints")}
        row = {"edits": pl_module.loop.edits_written, "seconds": now - self._since, "processor": busy, **parts}
        row["other"] = row["seconds"] - sum(parts.values())
        last = pl_module.loop.updates_written
        update = folder / "updates" / f"update-{last:05}.safetensors"
        self.rows.append(
            row
            | {
                "memory_bytes": held_memory(),
                "checkpoint_bytes": checkpoints(folder)[0].stat().st_size,
                "update_bytes": update.stat().st_size,
                "table_bytes": (folder / "updates.csv").stat().st_size,
            }
        )
        self._begin(pl_module)


def measure(choice: Choice) -> list[Row]:
    """Medians of each tenth of the stream, and what there is at its end."""
    per_update = max(1, choice.edits // UPDATES)
    module = EditingModule(
        choice.model, layers=[1], source=Gradient(), edits_per_update=per_update, previous_keys=False
    )
    gauge = Gauge()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            max_epochs=1,
            accelerator=choice.device if choice.device == "cpu" else "gpu",
            logger=CSVLogger(folder, name=""),
            callbacks=[EditCheckpoint(), Watch(sample=16), gauge],
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
        )
        trainer.fit(module, datamodule=Stream(choice.edits, per_update))
    size = max(1, len(gauge.rows) // TENTHS)
    tenths = [gauge.rows[i : i + size] for i in range(0, len(gauge.rows), size)]
    times = ("seconds", "processor", "values", "solve", "checkpoints", "other")
    return [tenth[-1] | {name: statistics.median(row[name] for row in tenth) for name in times} for tenth in tenths]


def stage(run: Run, quick: bool) -> dict[str, list[Row]]:
    """Measures every model; see the module."""
    rows = []
    for choice in run.choices(MODELS, QUICK if quick else FULL):
        what = f"{choice.model}: a stream of {choice.edits} edits"
        rows += [{"model": choice.model, **row} for row in run(what, measure, choice)]
    return {"timed": rows}


def tables(rows: dict[str, list[Row]]) -> list[Table]:
    """The figures, for people."""
    lines = [
        (
            row["model"],
            f"{row['edits']:,}",
            *(number(row[name]) for name in ("seconds", "processor", "values", "solve", "checkpoints", "other")),
            mebibytes(row["memory_bytes"]),
            mebibytes(row["checkpoint_bytes"]),
            mebibytes(row["update_bytes"]),
            f"{row['table_bytes'] / 1024:.0f} KiB",
        )
        for row in rows["timed"]
    ]
    columns = ("model", "edits", "s an update", "processor", "values", "solve", "files", "other")
    columns += ("memory", "checkpoint", "update")
    title = "A stream of edits by gradient values"
    caption = "Medians of a tenth of the updates; memory and sizes of files at its end. Other: data, tables and logs."
    return [table_of(title, caption, (*columns, "updates.csv"), 1, lines)]
