"""Runs with windows: resumed bit for bit, undone, built upon, and taken out of a run."""

import shutil

import pytest
import torch

from lightning_edit import AlphaEdit, EditError, EditRequest, EvoEdit, ValueSettings, Windows
from lightning_edit.datamodules import TinyWorld
from lightning_edit.storage.checkpoints.checkpoint_file import checkpoints
from lightning_edit.updates.history import History
from lightning_edit.updates.undo import change_updates
from tests.small_runs import VALUES, Refuse, Requests, fit, module


def long_edits(count):
    """Edits without a subject, each with two others' prompts and answers behind its own answer."""
    facts = TinyWorld(edits=count).requests
    said = [f"{fact.rewrite_prompt} {fact.target_new}." for fact in facts]
    return [
        EditRequest("", fact.rewrite_prompt, f"{fact.target_new}. {said[i - 1]} {said[i - 2]}", case_id=str(i))
        for i, fact in enumerate(facts)
    ]


EDITS = long_edits(8)


def windowed(**changes):
    settings = {"source": Windows(window=8), "layers": [0, 1], "context_templates": None, "previous_keys": True}
    return module(**{**settings, "model": "tiny", **changes})


def same(first, second):
    for layer in first.layers:
        assert torch.equal(first.decoder.weight(layer), second.decoder.weight(layer))
        before, after = (run.loop.editor.previous_keys[layer].dense() for run in (first, second))
        assert torch.equal(before, after)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of four updates, and its folder."""
    made = windowed()
    return made, fit(tmp_path_factory.mktemp("whole"), made, Requests(EDITS))


def test_a_resumed_run_is_the_run_that_was_never_stopped(whole):
    made, folder = whole
    before = checkpoints(folder)[1]
    assert before.name == "update-000003.ckpt"
    again = windowed()
    fit(folder.parent, again, Requests(EDITS), ckpt_path=str(before))
    assert again.loop.updates_written == 4
    same(made, again)


def test_a_refused_update_is_undone(whole, tmp_path):
    refused, short = windowed(), windowed()
    with pytest.warns(UserWarning, match="undone"):
        fit(tmp_path, refused, Requests(EDITS), Refuse(3))
    fit(tmp_path, short, Requests(EDITS[:4]))
    same(refused, short)


def test_an_update_is_taken_out_of_a_run(whole, tmp_path):
    made, folder = whole
    record = History(folder / "updates").record(2)
    assert record.owners is not None and set(record.owners) == {0, 1} and len(record.owners) > 4
    assert made.seconds["values"] > 0 and made.kind == "searched"
    folder = shutil.copytree(folder, tmp_path / "version_0")
    (folder / "config.yaml").write_text("model:\n  init_args:\n    model: tiny\n")
    change = change_updates(folder, "remove", [4])
    assert change.exact and change.checked


def test_what_has_no_effect_is_said_and_what_means_nothing_is_refused(caplog):
    windowed(values=ValueSettings(kl_factor=0.0))
    assert not caplog.text
    windowed(values=ValueSettings(kl_factor=0.5, steps=3))
    assert "no subject that a KL prompt could name; these settings have no effect: values.kl_factor." in caplog.text
    with pytest.raises(EditError, match=r"set `source.preserve_text: false`"):
        windowed(anchor=EvoEdit(), solver=AlphaEdit(), previous_keys=None)
    windowed(anchor=EvoEdit(), solver=AlphaEdit(), previous_keys=None, source=Windows(preserve_text=False))
    assert VALUES.kl_factor
