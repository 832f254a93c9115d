"""A run whose updates cannot be kept, or are deleted meanwhile, goes on, and its edits are those of any other run."""

import os
import resource
import shutil
from pathlib import Path

import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_edit.callbacks import EditCheckpoint
from lightning_edit.datamodules import TinyWorld
from lightning_edit.requests import EditRequest
from lightning_edit.run.edit_callback import EditCallback
from lightning_edit.storage.checkpoints.checkpoint_file import checkpoints
from lightning_edit.updates.history import History
from tests.histories import simple
from tests.small_runs import Requests, module
from tests.trainers import quiet_trainer


class FullDisk(EditCheckpoint):
    """The disk has no room for the second update, and room again for its checkpoint."""

    state_key = "EditCheckpoint"

    def _add_to_history(self, trainer, module):
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        if module.loop.updates_written == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
        super()._add_to_history(trainer, module)
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


class Delete(EditCallback):
    """Somebody deletes ``updates/`` after the first update."""

    def on_edits_written(self, trainer, pl_module):
        if pl_module.loop.updates_written == 2:
            shutil.rmtree(pl_module.loop.history.folder)


class Stop(EditCallback):
    def on_edits_written(self, trainer, pl_module):
        if pl_module.loop.updates_written == 3:
            raise RuntimeError("power cut")


def requests():
    """The first fact is edited in each of three updates."""
    edits = TinyWorld(edits=6).requests
    again = [EditRequest(edits[0].subject, edits[0].prompt, edits[n].target_new, case_id=f"again {n}") for n in (1, 2)]
    return [edits[0], edits[1], again[0], edits[2], again[1], edits[3]]


def fitted(folder, *callbacks, kept=EditCheckpoint, version=None, **options):
    made, logger = module(previous_keys=True), TensorBoardLogger(folder, name="", version=version)
    runner = quiet_trainer(folder, *callbacks, kept(), logger=logger)
    runner.fit(made, datamodule=Requests(requests()), weights_only=True, **options)
    return made, Path(logger.log_dir)


@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.slow
def test_an_edit_that_was_replaced_is_released_once_although_its_update_could_not_be_kept(stopped, tmp_path, caplog):
    alone, _ = fitted(tmp_path / "alone")
    if stopped:
        with pytest.raises(RuntimeError, match="power cut"):
            fitted(tmp_path / "run", Stop(), kept=FullDisk)
        newest = checkpoints(tmp_path / "run" / "version_0")[0]
        assert newest.name == "update-000002.ckpt"
        made, _ = fitted(tmp_path / "run", ckpt_path=newest, version="version_0")
    else:
        made, _ = fitted(tmp_path / "run", kept=FullDisk)
    assert caplog.text.count("could not be stored in a file of its own") == 1
    assert torch.equal(made.decoder.weight(0), alone.decoder.weight(0))
    kept = made.loop.editor.previous_keys[0].dense()
    assert torch.equal(kept, alone.loop.editor.previous_keys[0].dense())
    assert float(torch.linalg.eigvalsh(kept).min()) > -1e-8


@pytest.mark.slow
def test_updates_that_are_deleted_meanwhile_are_told_and_the_run_goes_on(tmp_path, caplog):
    alone, _ = fitted(tmp_path / "alone")
    made, folder = fitted(tmp_path / "run", Delete())
    assert torch.equal(made.decoder.weight(0), alone.decoder.weight(0))
    assert caplog.text.count("Update 2 could not be stored in a file of its own") == 1
    assert "update-00001.safetensors is not there (any more)" in caplog.text
    assert History(folder / "updates").numbers() == []


def test_reading_an_update_does_not_list_the_folder(tmp_path, monkeypatch):
    history = simple(tmp_path / "updates", updates=3)
    listed = []
    real = Path.iterdir

    def iterdir(path):
        listed.append(path)
        return real(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    monkeypatch.setattr(os, "listdir", lambda path: listed.append(path) or [])
    for number in (1, 2, 3):
        assert history.read(number).record.number == number
        assert history.record(number).number == number
    assert listed == []
