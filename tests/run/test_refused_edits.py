"""Edits that no model could learn are refused before one is loaded."""

from dataclasses import replace

import pytest

from lightning_edit import (
    CrispEdit,
    EditError,
    FineTuning,
    Gradient,
    InContext,
    LyapLock,
    MemoryEditing,
    ValueSettings,
)
from lightning_edit.datamodules import TinyWorld
from lightning_edit.metrics import EvaluationSettings
from tests.small_runs import Requests, module
from tests.trainers import quiet_trainer

EDITS = TinyWorld(edits=2).requests
ALONE = replace(EDITS[0], subject="", prompt="What are lanterns made of?")
REPLACING = [EDITS[0], replace(EDITS[0], target_new=EDITS[1].target_new + "s")]
SOURCED = {"source": Gradient(warmup=10**6), "solver": None, "values": ValueSettings()}


@pytest.mark.parametrize(
    ("make", "edits", "message"),
    [
        (module, [ALONE], r"1 edit \(record .*\) has no subject, at whose last token a search"),
        (lambda: module(independent_updates=True), REPLACING, "With `independent_updates` no edit can replace"),
        (lambda: module(anchor=LyapLock()), REPLACING, "With `anchor: LyapLock` no edit can replace another"),
        (lambda: module(on_top_of="none.ckpt"), EDITS, r"`model.on_top_of`: there is no file none.ckpt"),
        (lambda: module(**SOURCED), EDITS, "`source.warmup` asks for 1000000 facts, and there are"),
        (lambda: module(evaluation=EvaluationSettings(generate=True)), REPLACING[:1], "no record has generation"),
        (lambda: FineTuning("tiny"), REPLACING, "makes all edits at once, so none can replace another"),
        (lambda: CrispEdit("tiny"), REPLACING, "so none can replace another: set `data.conflicts` to keep_first"),
        (lambda: InContext("tiny"), REPLACING, "All facts are known at once, so none can replace another"),
        (lambda: MemoryEditing("tiny"), REPLACING, "A memory keeps all its edits, so none can replace another"),
    ],
)
def test_edits_that_cannot_be_made_are_refused_before_the_model_is_loaded(make, edits, message, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "lightning_edit.run.measured_module.load_editable", lambda *_: pytest.fail("a model was loaded")
    )
    if "generation" in message:
        edits = [replace(edit, generation_prompts=()) for edit in edits]
    with pytest.raises(EditError, match=message):
        quiet_trainer(tmp_path).fit(make(), datamodule=Requests(edits))


def test_a_first_update_of_a_single_token_is_refused_before_anything_is_measured(tmp_path, monkeypatch):
    settings = {"source": Gradient(), "solver": None, "values": ValueSettings(), "context_templates": None}
    made = module(**settings, edits_per_update=1)
    monkeypatch.setattr("lightning_edit.run.measuring.evaluate", lambda *_: pytest.fail("edits were measured"))
    first = replace(EDITS[0], target_new="a")
    with pytest.raises(EditError, match=r"The first update, .*, has a single token.*set `source.warmup`"):
        quiet_trainer(tmp_path).fit(made, datamodule=Requests([first, EDITS[1]]))
