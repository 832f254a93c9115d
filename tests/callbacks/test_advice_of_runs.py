"""What runs advise: the same after they were stopped, and of the edits that they made alone."""

import re

import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_edit import MEMIT, ValueSettings
from lightning_edit.callbacks import EditReport
from lightning_edit.datamodules import TinyWorld
from lightning_edit.storage.checkpoints.checkpoint_file import checkpoints, damage
from tests.small_runs import Refuse, Requests, fit, module
from tests.trainers import quiet_trainer

# Values are found, and so much is preserved that none of them is written.
UNWRITTEN = {"solver": MEMIT(1e9, ridge=0.01), "values": ValueSettings(lr=0.5, steps=25, clamp_norm_factor=10.0)}
FOUND = "although their values were found"


def advised(folder, made, data, capsys, ckpt_path=None):
    """What the report says of failures."""
    capsys.readouterr()
    runner = quiet_trainer(folder, EditReport())
    runner.test(made, datamodule=data, ckpt_path=ckpt_path, weights_only=True, verbose=False)
    (line,) = re.findall(r"^\d+ of \d+ edits failed.*$", capsys.readouterr().out, re.M)
    return line


@pytest.mark.parametrize("changes", [{}, {"independent_updates": True}], ids=["sequence", "independent"])
def test_a_resumed_run_advises_what_it_would_have_otherwise(changes, tmp_path, capsys):
    data, made, resumed, older = TinyWorld(edits=4), *(module(**UNWRITTEN, **changes) for _ in range(3))
    folder = fit(tmp_path, made, data)
    whole = advised(tmp_path / "whole", made, data, capsys)
    assert whole.startswith("4 of 4 ") and FOUND in whole
    first = checkpoints(folder)[1]
    content = torch.load(first, weights_only=True)
    assert sorted(content["run"]["value_losses"]) == ([0, 1, 2, 3] if changes else [0, 1])
    logger = TensorBoardLogger(tmp_path, name="", version=folder.name)
    fit(tmp_path, resumed, data, ckpt_path=first, logger=logger)
    assert resumed.loop.value_losses == made.loop.value_losses
    assert advised(tmp_path / "resumed", resumed, data, capsys) == whole
    # Checkpoints of before go on without them.
    del content["run"]["value_losses"]
    torch.save(content, first)
    assert damage(first) is None
    fit(tmp_path, older, data, ckpt_path=first, logger=TensorBoardLogger(tmp_path, name="", version=folder.name))
    assert older.loop.edits_written == 4


def test_a_checkpoint_that_is_measured_again_knows_the_losses_of_its_own_edits(tmp_path, capsys):
    data = TinyWorld(edits=2)
    made = module(**UNWRITTEN)
    folder = fit(tmp_path, made, data)
    whole = advised(tmp_path / "whole", made, data, capsys)
    again = module(**UNWRITTEN)
    assert advised(tmp_path / "again", again, data, capsys, folder / "edited.ckpt") == whole
    others = Requests(TinyWorld(edits=4).requests[2:])
    with pytest.warns(UserWarning, match="not the records"):
        line = advised(tmp_path / "others", module(**UNWRITTEN), others, capsys, folder / "edited.ckpt")
    assert line.startswith("2 of 2 ") and FOUND not in line


def test_edits_that_a_stopped_run_has_not_made_did_not_fail(tmp_path, capsys):
    data, made = TinyWorld(edits=4), module(**UNWRITTEN, edits_per_update=1)
    with pytest.warns(UserWarning, match="undone"):
        folder = fit(tmp_path, made, data, Refuse(2))
    line = advised(tmp_path / "stopped", made, data, capsys)
    assert line.startswith("1 of 1 edits failed although")
    assert (
        advised(tmp_path / "again", module(**UNWRITTEN, edits_per_update=1), data, capsys, folder / "edited.ckpt")
        == line
    )
