"""What commands say of a run on top of another: its model holds the edits of both."""

import json
import shutil

import pytest

from lightning_edit import ModelUpdate
from lightning_edit.cli import main as cli
from lightning_edit.datamodules import TinyWorld
from tests.shared_runs import command

EARLIER = TinyWorld(edits=2).requests


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of two edits that the model says afterwards, and one of four on top of it, both only read."""
    folder = tmp_path_factory.mktemp("upon")
    learned = {"model.values.steps": 20, "model.values.clamp_norm_factor": 4, "model.edits_per_update": "null"}
    first = command(folder / "first", **learned, **{"data.edits": 2})
    second = command(folder / "second", **{"data.edits": 4, "data.seed": 1, "model.on_top_of": first})
    return first, second


def asked(capsys, run):
    capsys.readouterr()
    cli.main(["ask", str(run), "--once", EARLIER[0].rewrite_prompt, "--json", "--tokens", "3"])
    out, err = capsys.readouterr()
    return json.loads(out), err


def test_before_is_the_model_that_the_run_found(runs, capsys, tmp_path):
    first, second = runs
    (of_first, _), (of_second, said) = asked(capsys, first), asked(capsys, second)
    assert EARLIER[0].target_true in of_first["before"] and EARLIER[0].target_new in of_first["after"]
    assert of_second["before"] == of_first["after"]
    assert "is not there" not in said
    copy = shutil.copytree(second, tmp_path / "copy")
    (copy / "updates" / "start.safetensors").unlink()
    of_copy, said = asked(capsys, copy)
    assert of_copy["before"] == of_first["before"] and of_copy["after"] == of_second["after"]
    assert "start.safetensors is not there. So 'before' is the base model without any edit" in said


@pytest.mark.parametrize("given", ["run", "older", "checkpoint"])
def test_the_card_says_that_earlier_edits_are_in_the_export(runs, given, tmp_path):
    first, second = runs
    run = shutil.copytree(second, tmp_path / "run")
    update = ModelUpdate.load(run / "update.safetensors")
    assert update.info.pop("on_top") is True and update.info["edits"] == 4
    if given == "older":
        update.save(run / "update.safetensors")
    out = tmp_path / "out"
    cli.main(["export", str(run / "edited.ckpt" if given == "checkpoint" else run), "--out", str(out)])
    card = (out / "README.md").read_text()
    assert "# 4 edited facts in model, on top of those of an earlier run" in card
    assert "- Built on an earlier run: its edits are in here, too" in card
    assert "All of this run, without those of the run it was built on:" in card and "All of them" not in card
    assert "*Before* is the model with the edits of the earlier run." in card
    assert "rank 6" in card
    cli.main(["export", str(first), "--out", str(tmp_path / "alone")])
    card = (tmp_path / "alone" / "README.md").read_text()
    assert "All of them:" in card and "earlier run" not in card
    assert "on_top" not in ModelUpdate.load(first / "update.safetensors").info


def test_an_update_still_says_so_after_one_was_removed(runs, tmp_path):
    _, second = runs
    run = shutil.copytree(second, tmp_path / "run")
    cli.main(["updates", "remove", str(run), "2"])
    assert ModelUpdate.load(run / "update.safetensors").info["on_top"] is True
