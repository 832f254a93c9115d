"""Which edits failed in a test, for callbacks that show them."""

from collections.abc import Set
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback

from lightning_edit.metrics.edit_metrics import has_failed, name_of
from lightning_edit.run.edit_callback import EditingRun


class NotesFailures(Callback):
    """Keeps the names of the edits that failed in the test under way, see `has_failed`."""

    _failed: Set[tuple[str, ...]] = frozenset()

    def on_test_start(self, trainer: Trainer, pl_module: EditingRun) -> None:
        """Begins anew."""
        self._failed = set()

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: EditingRun, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Notes which edits failed."""
        if not isinstance(self._failed, set):
            self._failed = set()
        self._failed.update(name_of(record) for record in outputs["records"] if has_failed(record))
