"""What else the edits have changed, in real runs: its files, its table, resuming, and limits."""

import json
import re

import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_edit import MEMIT, EditError, ValueSettings
from lightning_edit.callbacks import Collateral, EditReport, Watch
from lightning_edit.collateral import FIGURES, KINDS, Asked, Probe, figures_of, judge
from lightning_edit.collateral.long_context import AFTER, BEFORE, LONG_CONTEXT, RATIO
from lightning_edit.datamodules import TinyWorld
from lightning_edit.metrics.descriptions import description
from lightning_edit.run.edit_callback import EditCallback
from lightning_edit.run.methods.fine_tuning import FineTuning
from lightning_edit.storage.checkpoints.checkpoint_file import checkpoints
from lightning_edit.storage.checkpoints.checkpoint_form import check_checkpoint
from tests.small_runs import fit, module
from tests.trainers import quiet_trainer

PROMPTS = 32


class Stop(Exception):
    """Ends a run."""


class StopAfter(EditCallback):
    """Fails before an update is written."""

    def __init__(self, number):
        self.number = number

    def on_edits_written(self, trainer, pl_module):
        if pl_module.loop.updates_written == self.number:
            raise Stop


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def answers(folder):
    return [(line["prompt"], line["before"], line["after"], line["kl"]) for line in lines(folder / "collateral.jsonl")]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A run as the command line makes it: measured before, edited, measured after."""
    folder = tmp_path_factory.mktemp("measured")
    made, data, logger = module(edits_per_update=None), TinyWorld(edits=6), TensorBoardLogger(folder, name=None)
    runner = quiet_trainer(folder, EditReport(), Collateral(PROMPTS), logger=logger)
    runner.test(made, datamodule=data, verbose=False)
    runner.fit(made, datamodule=data)
    runner.test(made, datamodule=data, verbose=False)
    return made, folder / "version_0"


def test_all_answers_give_the_figures_of_the_section(measured):
    made, folder = measured
    section, found = json.loads((folder / "metrics.json").read_text())["collateral"], lines(folder / "collateral.jsonl")
    assert len(found) == PROMPTS and section["asked"] == {kind: 16 if kind == "general" else 4 for kind in KINDS}
    probes = [
        Probe(line["kind"], line["prompt"], tuple(line["answers"]), line["unwanted"] or "", before=line["before"])
        for line in found
    ]
    assert [judge(probe, line["after"]).why for probe, line in zip(probes, found, strict=True)] == [
        line["worse"] for line in found
    ]
    figures = figures_of(probes, [Asked(line["after"], line["kl"]) for line in found])
    behind = {name: section["figures"].pop(name) for name in LONG_CONTEXT}
    assert figures == pytest.approx(section["figures"])
    assert set(FIGURES) <= set(figures)
    assert behind[RATIO] == pytest.approx(behind[AFTER] / behind[BEFORE]) and behind[RATIO] != 1
    assert section["figures"]["reworded_said"] > 0.5 and section["figures"]["general_kl"] > 0
    assert all((line["kl"] is not None) == (line["kind"] == "general") for line in found)
    assert set(made.seconds) >= {"collateral"} and section["worst"]


def test_the_reference_is_the_model_before_the_run(measured):
    _, folder = measured
    world = {request.rewrite_prompt: request.target_true for request in TinyWorld(edits=400).requests}
    old = [line for line in lines(folder / "collateral.jsonl") if line["kind"] == "old_object"]
    assert all(line["before"].split(".")[0].strip() == line["answers"][0] for line in old)
    assert all(world.get(line["prompt"], line["answers"][0]) == line["answers"][0] for line in old)


def test_figures_reach_tensorboard_and_the_curve(measured):
    _, folder = measured
    events = EventAccumulator(str(folder)).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag.startswith("collateral/")]
    assert sorted(tags) == sorted(f"collateral/{name}" for name in (*FIGURES, *LONG_CONTEXT))
    assert all(events.SummaryMetadata(tag).summary_description == description(tag) != "" for tag in tags)
    assert [line["edits"] for line in lines(folder / "curves.jsonl")] == [6]


def test_the_table_shows_figures_and_the_worst_changes(measured, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    made, _ = measured
    made.results.setdefault("after", {})
    report = EditReport()
    failed = [{**vars(request), "generated_match": False} for request in made.requests[:2]]
    report.on_test_batch_end(made.trainer, made, {"records": failed}, None, 0)
    report.on_test_end(made.trainer, made)
    shown = capsys.readouterr().out
    assert "collateral" in shown and "general prompts" in shown and "KL (nats)" in shown
    assert made.sections["collateral"]["worst"][0]["prompt"] in shown
    assert f"Perplexity behind long contexts: {made.sections['collateral']['figures'][BEFORE]:.3g} before, " in shown
    assert "only some were asked" in shown and "`collateral.prompts`" in shown
    losses = made.loop.value_losses
    loss = (losses[0] + losses[1]) / 2
    assert len(losses) == 6 and loss > 0
    assert re.search(r"2 of 6 edits failed (with|although).* mean value loss of ", shown)
    assert f"a mean value loss of {loss:.2g}" in shown


@pytest.mark.slow
def test_a_resumed_run_keeps_the_reference_and_finds_the_same(tmp_path):
    data, settings = TinyWorld(edits=6), {"prompts": PROMPTS, "every_n_updates": 1}
    whole = fit(tmp_path / "whole", module(), data, Collateral(**settings))
    with pytest.raises(Stop):
        fit(tmp_path / "cut", module(), data, Collateral(**settings), StopAfter(2))
    resumed = tmp_path / "cut" / "version_0"
    fit(tmp_path / "cut", module(), data, Collateral(**settings), ckpt_path=checkpoints(resumed)[0])
    assert answers(resumed) == answers(whole)
    assert lines(resumed / "curves.jsonl") == lines(whole / "curves.jsonl")
    # An edit is asked for once it is written.
    said = [line["figures"]["collateral/reworded_said_n"] for line in lines(whole / "curves.jsonl")]
    assert said == sorted(said) and said[0] < said[-1] == 4


def test_a_reference_of_another_form_is_refused(tmp_path):
    folder = fit(tmp_path, module(), TinyWorld(edits=4), Collateral(8))
    content = torch.load(folder / "edited.ckpt", weights_only=True)
    (key,) = (key for key in content["callbacks"] if key.startswith("Collateral"))
    check_checkpoint(content)
    content["callbacks"][key]["reference"]["probes"][0]["prompt"] = 7
    with pytest.raises(EditError, match=r"Collateral\.reference\.probes\.0\.prompt: expected a text, got 7"):
        check_checkpoint(content)


@pytest.mark.slow
def test_another_process_measures_a_finished_model_again(tmp_path):
    data = TinyWorld(edits=4)
    folder = fit(tmp_path, module(), data, Collateral(PROMPTS))
    expected = answers(folder)
    made = module()
    runner = quiet_trainer(tmp_path / "again", EditReport(), Collateral(PROMPTS))
    runner.test(made, datamodule=data, ckpt_path=folder / "edited.ckpt", verbose=False, weights_only=True)
    found = tmp_path / "again" / "lightning_edit_run" / "version_0"
    assert answers(found) == expected
    assert json.loads((found / "metrics.json").read_text())["collateral"]["figures"]


@pytest.mark.parametrize("on_degradation", ["warn", "stop"])
def test_a_limit_holds_for_a_single_update(tmp_path, on_degradation):
    # Edits with all that they can do, and hardly anything preserved.
    changes = {"solver": MEMIT(1e-6, ridge=1e-6), "values": ValueSettings(lr=2.0, steps=6, clamp_norm_factor=50.0)}
    watch = Watch(max_growth=None, on_degradation=on_degradation)
    made, runner = module(edits_per_update=None, **changes), quiet_trainer(tmp_path, Collateral(PROMPTS), watch)
    message = "% of the answers to general prompts changed for the worse, more than `watch.max_worse` 0.1"
    if on_degradation == "warn":
        with pytest.warns(UserWarning, match=message):
            runner.fit(made, datamodule=TinyWorld(edits=2))
        assert made.loop.edits_written == 2
    else:
        with pytest.warns(UserWarning, match=message), pytest.raises(EditError, match="max_worse"):
            runner.fit(made, datamodule=TinyWorld(edits=2))
        assert "collateral" not in made.sections


def test_nothing_is_asked_where_it_is_switched_off_or_no_model_is_kept(tmp_path):
    for changes, callback in (({}, Collateral(0)), ({"independent_updates": True}, Collateral())):
        made = module(**changes)
        quiet_trainer(tmp_path, callback).fit(made, datamodule=TinyWorld(edits=2))
        assert "collateral" not in made.sections and not made.curves


def test_fine_tuning_is_measured_too(tmp_path):
    made = FineTuning("tiny", layers=[0])
    quiet_trainer(tmp_path, Collateral(16), epochs=3).fit(made, datamodule=TinyWorld(edits=2))
    assert made.sections["collateral"]["asked"]["general"] == 8
    assert (tmp_path / "lightning_edit_run" / "version_0" / "collateral.jsonl").exists()


def test_answers_that_leave_no_room_for_a_prompt_are_refused(tmp_path):
    runner = quiet_trainer(tmp_path, Collateral(PROMPTS, tokens=128))
    with pytest.raises(EditError, match=r"answers of 128 tokens leave no room .* of 128 tokens\. Lower"):
        runner.fit(module(), datamodule=TinyWorld(edits=2))
