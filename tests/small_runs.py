"""Small sequential runs of the embedded model, with checkpoints."""

from pathlib import Path

from lightning.pytorch.loggers import TensorBoardLogger

from lightning_edit import MEMIT, ValueSettings
from lightning_edit.callbacks import EditCheckpoint, ExportEdits
from lightning_edit.datamodules import TinyWorld
from lightning_edit.keys.layer_stats import SecondMomentSettings
from lightning_edit.run.edit_callback import EditCallback
from lightning_edit.run.module import EditingModule
from tests.trainers import quiet_trainer

VALUES = ValueSettings(lr=0.5, steps=4, clamp_norm_factor=4.0)


def module(**changes):
    settings = {"solver": MEMIT(1.0, ridge=0.01), "values": VALUES, "second_moment": SecondMomentSettings(tokens=2000)}
    settings |= {"layers": [0], "edits_per_update": 2, "context_templates": ["{}", "Well. {}"]}
    return EditingModule(**{"model": "tiny", **settings, **changes})


def fit(folder, made, data, *callbacks, ckpt_path=None, logger=None):
    logger = logger or TensorBoardLogger(folder, name=None)
    runner = quiet_trainer(folder, *callbacks, EditCheckpoint(keep=2), ExportEdits(model=False), logger=logger)
    runner.fit(made, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    return Path(logger.log_dir)


class Requests(TinyWorld):
    """Given edits of the embedded world."""

    def __init__(self, requests, **settings):
        super().__init__(edits=1, **settings)
        self.conflicts = "replace"
        self.given = requests

    def load_requests(self):
        return iter(self.given)


class Refuse(EditCallback):
    """Finds fault with one update."""

    def __init__(self, number):
        self.number = number

    def on_edits_written(self, trainer, pl_module):
        if pl_module.loop.updates_written == self.number:
            pl_module.loop.refuse("enough")
