"""Checkpoints of runs that edit experts, whose weights are stacked: they are read, gone on from and refused."""

import pytest
import torch

from lightning_edit import EditError, ModelUpdate
from lightning_edit.datamodules import TinyWorld
from lightning_edit.storage.checkpoints import checkpoint_file
from tests import small_runs

EXPERTS = {"model": "tiny-moe", "layers": [1]}


def test_a_run_of_experts_goes_on_bit_for_bit(tmp_path):
    whole = small_runs.fit(tmp_path / "whole", small_runs.module(**EXPERTS), TinyWorld(edits=4))
    first = checkpoint_file.checkpoints(whole)[1]
    assert torch.load(first, weights_only=True)["run"]["updates_written"] == 1
    expected = ModelUpdate.load(whole / "update.safetensors").layers[1].factors
    (whole / "update.safetensors").unlink()
    small_runs.fit(tmp_path / "whole", small_runs.module(**EXPERTS), TinyWorld(edits=4), ckpt_path=str(first))
    now = ModelUpdate.load(whole / "update.safetensors").layers[1].factors
    assert torch.equal(now.left, expected.left)
    assert torch.equal(now.right, expected.right)
    with pytest.raises(EditError, match="other weights than layer 1"):
        small_runs.fit(
            tmp_path / "whole", small_runs.module(**EXPERTS, dtype="float64"), TinyWorld(edits=4), ckpt_path=str(first)
        )
