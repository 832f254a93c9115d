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

    def among_made(self, trainer: Trainer, module: EditingRun) -> tuple[int, list[int]]:
        """Failures among the edits that were made: a run that was stopped has not tried the others.

        Args:
            trainer: The trainer of the test.
            module: The module that was measured.

        Returns:
            How many of the measured edits were made, and where those of them that failed are among all edits.
        """
        requests, so_far = trainer.datamodule.requests, module.positions_so_far
        left = set(range(len(requests))).difference(so_far) if len(so_far) < len(requests) else ()
        missing, failed = set[tuple[str, ...]](), dict[tuple[str, ...], int]()
        for place, name in enumerate(name_of(vars(request)) for request in requests):
            if place in left:
                missing.add(name)
            elif name in self._failed:
                failed[name] = place
        measured = trainer.datamodule.measured
        made = sum(name_of(vars(one)) not in missing for one in measured) if missing else len(measured)
        return made, list(failed.values())
