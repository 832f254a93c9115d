"""What a run leaves on disk: the edited model, the update alone, a checkpoint of the edited tensors, or memories."""

import logging
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback

from lightning_edit.errors import EditError
from lightning_edit.loading.sharding import gathered_weights
from lightning_edit.run.edit_callback import EditingRun
from lightning_edit.run.methods.memory_editing import MemoryEditing
from lightning_edit.storage.atomic import atomic_path, copy_others
from lightning_edit.storage.checkpoints.checkpoint_file import EDITED, checkpoints, save
from lightning_edit.storage.run_files import MEMORIES, UPDATE, WEIGHTS
from lightning_edit.storage.run_folder import run_folder
from lightning_edit.updates.beside import save_beside

logger = logging.getLogger(__name__)


class ExportEdits(Callback):
    """Writes ``model/``, ``update.safetensors`` and ``edited.ckpt`` into the run's folder when the fit is over.

    A run of `MemoryEditing` has ``memories/`` in place of them. It works in ``teardown``, the first hook of a callback
    that sees the edited model.

    Args:
        model: Whether to write the whole model as a Hugging Face folder.
        update: Whether to write the update alone, or the memories.
        checkpoint: Whether to write the Lightning checkpoint.
    """

    def __init__(self, model: bool = True, update: bool = True, checkpoint: bool = True) -> None:
        self.model, self.update, self.checkpoint = model, update, checkpoint

    def on_fit_start(self, trainer: Trainer, pl_module: EditingRun) -> None:
        """Refuses a folder that holds another run's model, before anything expensive."""
        run_folder(trainer)

    def teardown(self, trainer: Trainer, pl_module: EditingRun, stage: str) -> None:
        """Writes what there is to write; a run that made no update leaves nothing.

        Raises:
            EditError: If one of them could not be written, after the others were tried.
        """
        if stage != "fit" or trainer.fast_dev_run:
            return
        folder, failed = run_folder(trainer), list[OSError]()
        if isinstance(pl_module, MemoryEditing):
            if self.update and pl_module.loop.edits_written:
                pl_module.save_memories(folder / MEMORIES)
                logger.info("The edits are in %s; load_memories puts them on a model.", folder / MEMORIES)
            return
        if pl_module.update is None:
            return
        if self.checkpoint:
            with _collected(failed):
                save(trainer, folder / EDITED)
        weights = gathered_weights(pl_module.model) if self.model else None
        if not trainer.is_global_zero:
            return
        if self.update:
            with _collected(failed):
                pl_module.update.save(folder / UPDATE)
        if self.model:
            with _collected(failed), atomic_path(folder / "model") as scratch:
                if pl_module.codes:
                    save_beside(pl_module.model, pl_module.codes, pl_module.update, scratch)
                else:
                    pl_module.model.save_pretrained(scratch, state_dict=weights)
                pl_module.tokenizer.save_pretrained(scratch)
                copy_others(folder / "model", scratch, WEIGHTS)
        if failed:
            raise EditError(f"{'; '.join(map(str, failed))}. {_remedy(folder)}") from failed[0]
        logger.info("The edited model is in %s.", folder)


@contextmanager
def _collected(failed: list[OSError]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        failed.append(error)


def _remedy(folder: Path) -> str:
    kept = checkpoints(folder)
    if not kept:
        return "Make room, or give another place as `trainer.logger.init_args.save_dir`."
    go_on = f"fit --ckpt_path {shlex.quote(str(kept[0]))}"
    return f"Make room, then {go_on} goes on from the last checkpoint and writes what is missing."
