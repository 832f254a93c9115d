"""What makes a run survive anything: a checkpoint after each update, and every update in a file of its own."""

import logging
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lightning_edit.callbacks.log_files import cut_back, keep_csv, note_events, noted_events, open_events, sizes
from lightning_edit.distributed.process_group import is_sharded
from lightning_edit.errors import EditError
from lightning_edit.messages import counted, terminal
from lightning_edit.models.finding.sites import oriented_weight
from lightning_edit.requests import replaced_by
from lightning_edit.run.edit_callback import EditCallback, EditingRun
from lightning_edit.settings import Count
from lightning_edit.storage.cache import Cache
from lightning_edit.storage.checkpoints.checkpoint_file import FOLDER, NAME, checkpoints, number_of, save
from lightning_edit.storage.fingerprint import fingerprint
from lightning_edit.storage.run_files import LOGS, UPDATES, clear_killed_writers
from lightning_edit.storage.run_folder import lock, run_folder, shared_folder, unlock
from lightning_edit.updates.history import History
from lightning_edit.updates.layer_update import LayerUpdate

logger = logging.getLogger(__name__)


class EditCheckpoint(EditCallback):
    """Writes ``checkpoints/update-N.ckpt`` after updates, and each update by itself into ``updates/``.

    A checkpoint holds the edited tensors and all that a run needs to go on as if it had never been stopped, and is
    either wholly there or not at all. In between, the values that were found are kept beside it. ``fit --ckpt_path
    last`` goes on from the newest one. What other callbacks measured of an update is in the logs when its checkpoint is
    written, for this one is called last.

    Args:
        every_n_updates: Write after every so many updates; a run of one process that is stopped by Ctrl-C or SIGTERM
            writes as well.
        keep: So many of the latest are kept.
        history: Whether to keep each update by itself, to be listed, removed and re-applied.

    Attributes:
        flags_to_go_on: What the command that goes on in a run's folder needs beside ``--ckpt_path``, where it is known.

    Raises:
        EditError: If a number is not positive.
    """

    called_last = True
    flags_to_go_on: Callable[[Path], Sequence[str]] | None = None

    def __init__(self, every_n_updates: Count = 1, keep: Count = 3, history: bool = True) -> None:
        super().__init__()
        self.every_n_updates, self.keep, self.history = every_n_updates, keep, history
        self._folder = Path()
        self._values: Cache | None = None
        self._kept_in: History | None = None
        self._unwritten: dict[int, Any] = {}
        self._sizes: dict[str, int] | None = None
        self._saved_at: int | None = None
        self._edits_saved = 0
        self._seen_at: int | None = None

    # -- a run begins, or goes on --------------------------------------------------------------------------------------

    def setup(self, trainer: Any, pl_module: EditingRun, stage: str) -> None:
        """Finds the run's folder, and gives values a place until their update is written."""
        if stage != "fit" or not self._works_for(trainer, pl_module):
            return
        if pl_module.loop.independent and not self.history:
            raise EditError(
                "EditCheckpoint: a run of `independent_updates` resumes from its updates: set `history: true`."
            )
        self._take_up(trainer, pl_module)

    def on_resume(self, trainer: Any, pl_module: EditingRun) -> None:
        """Takes up the folder of the run, now that it is known, and keeps others from it."""
        if self._works_for(trainer, pl_module):
            self._take_up(trainer, pl_module)
            lock(trainer)
            if trainer.is_global_zero:
                keep_csv(trainer.loggers)

    def _take_up(self, trainer: Any, pl_module: EditingRun) -> None:
        self._folder = shared_folder(trainer)
        others = [cache for cache in pl_module.loop.value_caches if cache is not self._values]
        self._values = Cache(self._folder / FOLDER / "values")
        pl_module.loop.value_caches[:] = [self._values, *others]
        if self.history and pl_module.adds_to_weights:
            pl_module.loop.history = self._kept_in = History(self._folder / UPDATES)

    def _works_for(self, trainer: Any, module: EditingRun) -> bool:
        return module.by_updates and not trainer.fast_dev_run

    def on_train_start(self, trainer: Any, pl_module: EditingRun) -> None:
        """Cuts the logs back to where a resumed run goes on; writes the first checkpoint of a new one.

        Raises:
            EditError: If the folder holds another run, or nothing can be written there; nothing is edited then.
        """
        if not self._works_for(trainer, pl_module):
            return
        history = self._kept_in or History(self._folder / UPDATES)
        if pl_module.identity.resumed:
            history.unwritten = self._unwritten
            if trainer.is_global_zero:
                self._go_back(trainer, pl_module, history)
            updates, edits = pl_module.loop.updates_written, pl_module.loop.edits_written
            self._saved_at = self._seen_at = updates
            self._edits_saved = edits
            of_all = counted(len(pl_module.requests), "edit")
            self._say(trainer, f"Going on in {self._folder} after update {updates} ({edits} of {of_all}).")
            return
        run_folder(trainer)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            lock(trainer)
            self._begin(trainer, pl_module, history)
        except OSError as error:
            if "temporary directory" in str(error):
                raise EditError(
                    f"There is no folder for temporary files ({error.strerror}). Free some space in one, or set the "
                    "environment variable TMPDIR to a folder with room."
                ) from error
            raise EditError(
                f"The run's folder {self._folder} cannot be written to ({error}). Give another one as "
                "`trainer.logger.init_args.save_dir`, or leave out the callback EditCheckpoint."
            ) from error

    def _go_back(self, trainer: Any, module: EditingRun, history: History) -> None:
        """Drops all that the run had made after the checkpoint; first what `last` would find."""
        for path in checkpoints(self._folder):
            if number_of(path) > module.loop.updates_written:
                path.unlink()
        clear_killed_writers(self._folder)
        open_now = open_events(self._folder, trainer.loggers)
        if self._sizes is not None:  # the checkpoint is of a run with this callback
            cut_back(self._folder, self._sizes, {*LOGS, *noted_events(self._folder, self._sizes)} - open_now)
        note_events(self._folder, open_now)
        kept = module.loop.updates_written
        if module.loop.kept.finished and history.path(kept + 1).exists() and not history.record(kept + 1).edits:
            kept += 1  # the post-processing of the sum
        history.forget_after(kept)

    def _begin(self, trainer: Any, module: EditingRun, history: History) -> None:
        if trainer.is_global_zero:
            if checkpoints(self._folder) or history.numbers():
                raise EditError(
                    f"{self._folder} holds the updates of another run, which are never replaced. Resume it with "
                    "--ckpt_path, move it, or give the trainer a logger of its own."
                )
            if self.history and module.weights.added:
                history.write_start(_layer_updates(module, module.weights.added), {"on_top_of": module.on_top_of})
        self._note(trainer)
        self._save(trainer, module)

    # -- after each update ---------------------------------------------------------------------------------------------

    def on_update_kept(self, trainer: Any, pl_module: EditingRun) -> None:
        """Keeps the update by itself, and writes the checkpoint where it is time."""
        if not self._works_for(trainer, pl_module):
            return
        with pl_module.timed("checkpoints"):
            self._note(trainer)
            self._add_to_history(trainer, pl_module)
            self._seen_at = pl_module.loop.updates_written
            if pl_module.loop.updates_written % self.every_n_updates == 0:
                self._try_to_save(trainer, pl_module)

    def on_edits_done(self, trainer: Any, pl_module: EditingRun) -> None:
        """Writes the last checkpoint, from which only the measurements after the fit are repeated."""
        if not self._works_for(trainer, pl_module):
            return
        with pl_module.timed("checkpoints"):
            self._note(trainer)
            self._add_to_history(trainer, pl_module)
            self._try_to_save(trainer, pl_module)

    def _add_to_history(self, trainer: Any, module: EditingRun) -> None:
        last, history, editor = module.loop.last_update, module.loop.history, module.loop.editor
        # A divided weight can be read by all processes together only.
        if last is None or editor is None or not (trainer.is_global_zero or is_sharded(module.model)):
            return
        after = {
            layer: fingerprint(oriented_weight(module.decoder.down_projection(layer))) for layer in last.written.factors
        }
        if history is None or not trainer.is_global_zero or history.path(last.number).exists():
            return
        written = last.written
        keys = {layer: written.keys.get(layer, factors.left[:0, :0]) for layer, factors in written.factors.items()}
        updates = _layer_updates(module, written.factors)
        info = editor.describe() | module.weights.described_model
        try:
            if last.number > 1 and not history.path(last.number - 1).exists():
                raise FileNotFoundError(f"{history.path(last.number - 1)} is not there (any more)")
            history.write(last.number, updates, keys, last.requests, written.figures, info, after, written.owners)
        except OSError as error:
            if not history.unwritten:
                logger.warning(
                    "Update %d could not be stored in a file of its own: %s. The run continues, but updates from "
                    "here on cannot be removed individually.",
                    last.number,
                    error,
                )
            # An edit that is replaced later must be found, and its key taken out of C_p once.
            needed = editor.previous_keys is not None and replaced_by(module.requests)
            history.remember(last.number, written.keys if needed else {}, last.requests, written.owners)

    def _note(self, trainer: Any) -> None:
        if trainer.is_global_zero:
            open_now = open_events(self._folder, trainer.loggers)
            note_events(self._folder, open_now)
            self._sizes = sizes(self._folder, noted_events(self._folder, self._sizes))

    def _try_to_save(self, trainer: Any, module: EditingRun) -> None:
        try:
            self._save(trainer, module)
        except OSError as error:
            before = checkpoints(self._folder)
            logger.warning(
                "The checkpoint after update %d could not be written: %s. The run continues without it; %s. Free "
                "some disk space, and the next one will be written.",
                module.loop.updates_written,
                error,
                f"the last one is {before[0]}" if before else "there is none before it",
            )

    def _save(self, trainer: Any, module: EditingRun) -> None:
        save(trainer, self._folder / FOLDER / NAME.format(module.loop.updates_written))
        if trainer.is_global_zero:
            for old in checkpoints(self._folder)[self.keep :]:
                old.unlink(missing_ok=True)
            if self._values is not None and not module.loop.queue.waiting and not module.loop.queue.taken:
                for entry in self._values.entries():
                    entry.path.unlink(missing_ok=True)
        self._saved_at, self._edits_saved = module.loop.updates_written, module.loop.edits_written

    def on_update_refused(self, trainer: Any, pl_module: EditingRun) -> None:
        """Takes out of the run's files what was measured of an update that was undone."""
        if trainer.is_global_zero and self._works_for(trainer, pl_module):
            cut_back(self._folder, self._sizes or {}, [name for name in LOGS if name != "updates.csv"])

    def on_test_start(self, trainer: Any, pl_module: EditingRun) -> None:
        """Notes where the figures after the fit go, which a fit that goes on from its last checkpoint repeats."""
        if self._saved_at is not None and trainer.is_global_zero and self._works_for(trainer, pl_module):
            lock(trainer)
            note_events(self._folder, open_events(self._folder, trainer.loggers))

    # -- a run is stopped ----------------------------------------------------------------------------------------------

    def on_exception(self, trainer: Any, pl_module: EditingRun, exception: BaseException) -> None:
        """Keeps what is not kept yet, and says how to go on."""
        try:
            if self._saved_at is not None and self._works_for(trainer, pl_module):
                self._keep_rest(trainer, pl_module, self._saved_at)
        finally:
            unlock(trainer)

    def teardown(self, trainer: Any, pl_module: EditingRun, stage: str) -> None:
        """Lets others work on the run."""
        unlock(trainer)

    def _keep_rest(self, trainer: Any, pl_module: EditingRun, saved_at: int) -> None:
        updates = pl_module.loop.kept.updates_written
        # An update that other callbacks have seen, and not this one, is not wholly in the logs.
        if trainer.world_size == 1 and updates > saved_at and updates == self._seen_at:
            pl_module.loop.return_to_kept()
            self._try_to_save(trainer, pl_module)
        kept = checkpoints(self._folder)
        if kept and pl_module.loop.stopped is None:
            edits, of_all = self._edits_saved, len(pl_module.requests)
            flags = self.flags_to_go_on(self._folder) if self.flags_to_go_on is not None else ()
            go_on = shlex.join(["fit", "--ckpt_path", str(kept[0]), *flags])
            self._say(trainer, f"{edits} of {of_all:,} edits are kept. To resume: {go_on}")

    @staticmethod
    def _say(trainer: Any, message: str) -> None:
        if trainer.is_global_zero:
            terminal(stderr=True).print(message, soft_wrap=True)

    def state_dict(self) -> dict[str, Any]:
        """The sizes of the run's growing files when the update was kept, and what its history lacks."""
        return {"sizes": self._sizes or {}, "unwritten": {} if self._kept_in is None else self._kept_in.unwritten}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Finds them again."""
        self._sizes, self._unwritten = state_dict["sizes"], state_dict.get("unwritten", {})


def _layer_updates(module: EditingRun, factors: Any) -> dict[int, LayerUpdate]:
    return {layer: module.weights.described(layer, own) for layer, own in sorted(factors.items())}
