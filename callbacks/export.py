"""What a run leaves on disk: the edited model, the update alone, and a checkpoint of the edited tensors."""

import logging

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from lightning_edit.models.sharding import gathered_weights
from lightning_edit.storage.atomic import atomic_path
from lightning_edit.storage.run_folder import run_folder

logger = logging.getLogger(__name__)


class ExportEdits(Callback):
    """Writes ``model/``, ``update.safetensors`` and ``edited.ckpt`` into the run's folder when the fit is over.

    It works in ``teardown``, the first hook of a callback that sees the edited model.

    Args:
        model: Whether to write the whole model as a Hugging Face folder.
        update: Whether to write the update alone.
        checkpoint: Whether to write the Lightning checkpoint.
    """

    def __init__(self, model: bool = True, update: bool = True, checkpoint: bool = True) -> None:
        self.model, self.update, self.checkpoint = model, update, checkpoint

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuses a folder that holds another run's model, before anything expensive."""
        run_folder(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Writes what there is to write; a run that made no update leaves nothing."""
        if stage != "fit" or pl_module.update is None or trainer.fast_dev_run:
            return
        folder = run_folder(trainer)
        if self.checkpoint:
            trainer.save_checkpoint(folder / "edited.ckpt", weights_only=False)
        weights = gathered_weights(pl_module.model) if self.model else None
        if not trainer.is_global_zero:
            return
        if self.update:
            pl_module.update.save(folder / "update.safetensors")
        if self.model:
            with atomic_path(folder / "model") as scratch:
                pl_module.model.save_pretrained(scratch, state_dict=weights)
                pl_module.tokenizer.save_pretrained(scratch)
        logger.info("The edited model is in %s.", folder)
