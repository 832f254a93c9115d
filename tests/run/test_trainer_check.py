"""Trainers that would edit or measure only some of the edits are refused, or say how many they left."""

import json
import warnings
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_edit.callbacks import EditReport
from lightning_edit.datamodules import TinyWorld
from lightning_edit.errors import EditError
from lightning_edit.run.trainer_check import check_trainer
from lightning_edit.solvers import PRUNE
from lightning_edit.storage.checkpoints import checkpoint_file
from lightning_edit.updates.history import History
from tests.small_runs import fit as run_small
from tests.small_runs import module
from tests.trainers import quiet_trainer


class StopAfter(Callback):
    """Ends the fit after some micro-batches, as `max_time` does."""

    def __init__(self, batches):
        self.batches = batches

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        trainer.should_stop = batch_idx + 1 >= self.batches
        return -1 if batch_idx >= self.batches else None


class StopAtOnce(Callback):
    """Ends the fit before its first micro-batch."""

    def on_train_epoch_start(self, trainer, pl_module):
        trainer.should_stop = True


def fit(folder, *callbacks, **settings):
    made = module(edits_per_update=None)
    quiet = {"enable_checkpointing": False, "enable_model_summary": False, "enable_progress_bar": False}
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        default_root_dir=folder,
        callbacks=list(callbacks),
        **{"max_epochs": 1, **quiet, **settings},
    )
    trainer.fit(made, datamodule=TinyWorld(edits=3, batch_size=1))
    return made


def test_autocast_around_a_fit_is_refused(tmp_path):
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(EditError, match=r"autocast` is on \(bfloat16\)"):
        fit(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"limit_train_batches": 1}, "`trainer.limit_train_batches` leaves out edits of the run, got 1"),
        ({"limit_train_batches": 0.5}, "`trainer.limit_train_batches` leaves out edits"),
        ({"limit_train_batches": 0}, "`trainer.limit_train_batches` leaves out edits"),
        ({"overfit_batches": 1}, "leaves out edits"),
        ({"limit_test_batches": 1}, "`trainer.limit_test_batches` leaves out edits"),
        ({"fast_dev_run": True}, "`trainer.fast_dev_run` makes one batch of edits and keeps nothing"),
        ({"max_steps": 1}, "leave out `trainer.max_steps`, got 1"),
    ],
)
def test_fewer_than_all_edits_are_refused_before_the_model_is_loaded(tmp_path, settings, message, monkeypatch):
    monkeypatch.setattr(
        "lightning_edit.run.measured_module.load_editable", lambda *_: pytest.fail("a model was loaded")
    )
    with pytest.raises(EditError, match=message):
        fit(tmp_path, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"accumulate_grad_batches": 4}, r"`trainer.accumulate_grad_batches` \(4\) would change steps of training"),
        ({"gradient_clip_val": 1.0}, r"`trainer.gradient_clip_val` \(1.0\) would change steps of training"),
        ({"devices": 9999}, r"`trainer.devices`: 9999 processes for \d+ cores"),
        ({"max_time": "00:00:00:00"}, r"`trainer\.max_time` leaves no time for the first edit"),
        ({"max_time": {"seconds": -5}}, r"`trainer\.max_time` leaves no time for the first edit"),
    ],
)
def test_what_lightning_takes_up_first_is_refused_before_a_fit(settings, message):
    trainer = Trainer(accelerator="cpu", max_epochs=1, logger=False, **settings)
    with pytest.raises(EditError, match=message):
        check_trainer(trainer, True)


def test_a_fit_that_ends_early_says_how_many_edits_it_left(tmp_path):
    with pytest.warns(UserWarning, match="before 2 of 3 edits had their turn"):
        made = fit(tmp_path, StopAfter(1))
    assert made.loop.edits_written == 1
    with pytest.raises(EditError, match="before 3 of 3 edits had their turn, so nothing is edited"):
        fit(tmp_path, StopAtOnce())
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*had their turn")
        made = fit(tmp_path)
    assert made.loop.edits_written == 3
    assert repr(made.update).startswith("ModelUpdate(layers=[0], edits=3, solver=MEMIT(")
    assert len(repr(made.update)) < 300


def sizes(run):
    history = History(run / "updates")
    return [len(history.record(number).edits) for number in history.numbers()]


def not_made(made, folder, data):
    """What `metrics.json` says of the edits that had no turn."""
    logger = TensorBoardLogger(folder, name=None)
    quiet_trainer(folder, EditReport(table=False), logger=logger).test(made, TinyWorld(**data), verbose=False)
    return json.loads((Path(logger.log_dir) / "metrics.json").read_text())["not_made"]


def test_what_the_trainer_left_is_made_when_the_run_is_resumed(tmp_path):
    settings = {"edits_per_update": 2, "post_processing": PRUNE(), "context_templates": ["{}"]}
    data = {"edits": 5, "batch_size": 1}
    short = module(**settings)
    with pytest.warns(UserWarning, match="before 2 of 5 edits had their turn"):
        run = run_small(tmp_path, short, TinyWorld(**data), StopAfter(3))
    assert not_made(short, tmp_path / "short", data) == 2
    # The third edit is written without waiting for the fourth, and the sum is not post-processed yet.
    assert sizes(run) == [2, 1]
    newest, _ = checkpoint_file.newest(tmp_path)
    made = module(**settings)
    run_small(tmp_path, made, TinyWorld(**data), ckpt_path=newest)
    assert made.loop.edits_written == 5
    assert not_made(made, tmp_path / "whole", data) == 0
    assert sizes(run) == [2, 1, 2, 0]
    with pytest.raises(EditError, match="is finished, so there is nothing to resume"):
        checkpoint_file.newest(tmp_path)
