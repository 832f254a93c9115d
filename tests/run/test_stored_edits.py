"""A run whose edits are stored in a file is the run whose edits are in memory, also where it was stopped."""

import json

import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_edit import stored_requests
from lightning_edit.callbacks import Retention, Watch
from lightning_edit.datamodules import OwnEdits, TinyWorldText, base
from lightning_edit.datamodules.tiny_world import TinyWorld
from lightning_edit.run.edit_callback import EditCallback
from lightning_edit.storage.checkpoints.checkpoint_file import checkpoints
from lightning_edit.stored_requests import StoredRequests
from tests.small_runs import fit, module


class Stop(EditCallback):
    """Stops a run after an update."""

    def on_update_kept(self, trainer, pl_module):
        if pl_module.loop.updates_written == 2:
            raise RuntimeError("power cut")


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "edits.jsonl"
    requests = [*TinyWorld(edits=7).requests, TinyWorld(edits=1).requests[0]]
    records = [{"subject": r.subject, "prompt": r.prompt, "target_new": r.target_new} for r in requests]
    # The first fact changes twice, the second time back to its first answer.
    records[3] |= {"subject": records[0]["subject"], "prompt": records[0]["prompt"]}
    file.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(file)


def data(path):
    return OwnEdits(path, batch_size=4, conflicts="replace", preservation=TinyWorldText())


def watchers():
    return Watch(sample=3), Retention(sample=3, every_n_updates=1)


def test_a_run_of_stored_edits_is_that_of_a_list(tmp_path, path, monkeypatch):
    listed, stored, resumed = module(), module(), module()
    fit(tmp_path / "listed", listed, data(path), *watchers())
    for place in (stored_requests, base):
        monkeypatch.setattr(place, "IN_MEMORY", 2)
    with pytest.raises(RuntimeError, match="power cut"):
        fit(tmp_path / "stored", stored, data(path), *watchers(), Stop())
    assert isinstance(stored.requests, StoredRequests)
    assert len(stored.requests) == 8
    begun = checkpoints(tmp_path / "stored" / "version_0")[0]
    logger = TensorBoardLogger(tmp_path / "stored", name="", version="version_0")
    fit(tmp_path / "stored", resumed, data(path), *watchers(), ckpt_path=begun, logger=logger)
    assert resumed.identity.records(resumed.requests) == listed.identity.records(listed.requests)
    assert torch.equal(resumed.decoder.weight(0), listed.decoder.weight(0))
    assert resumed.curves == listed.curves
    tables = [_without_times(tmp_path / place / "version_0" / "updates.csv") for place in ("listed", "stored")]
    assert tables[0] == tables[1]


def _without_times(path):
    rows = [line.split(",") for line in path.read_text().splitlines()]
    timed = {place for place, name in enumerate(rows[0]) if "second" in name}
    return [[cell for place, cell in enumerate(row) if place not in timed] for row in rows]
