"""Measurements in the middle of a run: when they happen, what they see, and that they leave no trace."""

import json
import random

import numpy as np
import pytest
import torch

from lightning_edit import EMMET, RROME, EditError, FineTuning, InContext, ValueSettings
from lightning_edit.callbacks import RecordResults, Retention, ShowExamples
from lightning_edit.callbacks.measuring.scheduled import Scheduled
from lightning_edit.datamodules import TinyWorld
from lightning_edit.keys.layer_stats import SecondMomentSettings
from lightning_edit.metrics import EditMetrics, evaluate
from lightning_edit.run.module import EditingModule
from tests.trainers import quiet_trainer


class Efficacy(Scheduled):
    """Measures all edits of the run, and disturbs whatever a careless measurement could disturb."""

    def check(self, trainer, module):
        assert module.model is not None

    def measure(self, trainer, module):
        random.random(), np.random.rand(), torch.rand(1)
        module.model.train()
        module.model.requires_grad_(True)
        metrics = EditMetrics()
        evaluate(module.decoder, module.tokenizer, trainer.datamodule.requests, metrics)
        return {"efficacy": float(metrics.compute()["efficacy_score"])}


def state(module):
    modes = [m.training for m in module.modules()]
    gradients = [p.requires_grad for p in module.parameters()]
    weights = {name: tensor.clone() for name, tensor in module.model.state_dict().items()}
    return modes, gradients, weights, random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()


class Watch(Scheduled):
    """Compares the state around another callback's measurement."""

    def __init__(self, watched):
        super().__init__(None, None, before=False, after=False)
        self.watched, self.same = watched, []

    def check(self, trainer, module): ...

    def measure(self, trainer, module): ...

    def compare(self, hook, trainer, module):
        before = state(module)
        getattr(self.watched, hook)(trainer, module)
        for old, new in zip(before, state(module), strict=True):
            if isinstance(old, dict):
                self.same.append(all(torch.equal(old[name], new[name]) for name in old))
            else:
                self.same.append(torch.equal(old, new) if isinstance(old, torch.Tensor) else old == new)

    def setup(self, trainer, pl_module, stage):
        self.watched.setup(trainer, pl_module, stage)

    def on_fit_start(self, trainer, pl_module):
        self.compare("on_fit_start", trainer, pl_module)

    def on_values_found(self, trainer, pl_module):
        self.compare("on_values_found", trainer, pl_module)

    def on_edits_written(self, trainer, pl_module):
        self.compare("on_edits_written", trainer, pl_module)

    def on_edits_done(self, trainer, pl_module):
        self.compare("on_edits_done", trainer, pl_module)


def run(folder, *callbacks, edits=4, batch_size=64, test=False, data=None, **changes):
    settings = {"solver": EMMET(1.0, ridge=0.01), "values": ValueSettings(steps=8, clamp_norm_factor=4.0)}
    settings |= {"second_moment": SecondMomentSettings(tokens=4000), "layers": [0]}
    settings |= {"context_templates": ["{}", "Well. {}"]}
    made, data = EditingModule("tiny", **{**settings, **changes}), data or TinyWorld(edits=edits, batch_size=batch_size)
    runner = quiet_trainer(folder, *callbacks)
    for step in ("test", "fit", "test") if test else ("fit",):
        extra = {"verbose": False} if step == "test" else {}
        getattr(runner, step)(made, datamodule=data, **extra)
    return made, folder / "lightning_edit_run" / "version_0"


def curve(folder):
    return [json.loads(line) for line in (folder / "curves.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("schedule", "edits", "test"),
    [
        ({}, [0, 1, 2, 3, 4], True),
        ({"every_n_updates": 3}, [0, 3, 4], False),
        ({"every_n_updates": None}, [0, 4], True),
        ({"every_n_updates": 2, "before": False, "after": False}, [2, 4], False),
    ],
)
@pytest.mark.slow
def test_updates_decide_when(schedule, edits, test, tmp_path):
    _, folder = run(tmp_path, Efficacy(**schedule), edits_per_update=1, test=test)
    lines = curve(folder)
    assert [line["edits"] for line in lines] == edits
    assert [line["updates"] for line in lines] == edits
    # Each measurement sees the edits so far: one more record answers with its new target each time.
    assert [line["figures"]["efficacy"] for line in lines] == [n / 4 for n in edits]


def test_micro_batches_see_edits_that_wait_for_their_update(tmp_path):
    made, folder = run(tmp_path, Efficacy(every_n_micro_batches=1), batch_size=2)
    lines = curve(folder)
    assert [(line["edits"], line["updates"]) for line in lines] == [(0, 0), (2, 0), (4, 0)]
    assert [line["figures"]["efficacy"] for line in lines] == [0, 0.5, 1]
    assert made.loop.updates_written == 1


@pytest.mark.slow
def test_a_measurement_leaves_no_trace(tmp_path):
    watch = Watch(Efficacy(every_n_micro_batches=1))
    measured, _ = run(tmp_path / "a", watch, batch_size=2, edits_per_update=3)
    assert len(watch.same) > 20
    assert all(watch.same)
    alone, _ = run(tmp_path / "b", batch_size=2, edits_per_update=3)
    assert torch.equal(measured.decoder.weight(0), alone.decoder.weight(0))


@pytest.mark.slow
def test_several_cadences_share_one_curve(tmp_path):
    _, folder = run(tmp_path, Efficacy(every_n_updates=2), Retention(every_n_updates=1), edits_per_update=1)
    lines = curve(folder)
    assert [line["edits"] for line in lines if "efficacy" in line["figures"]] == [0, 2, 4]
    assert [line["edits"] for line in lines if "retention/efficacy_score" in line["figures"]] == [1, 2, 3, 4]


def test_retention_counts_only_what_is_written(tmp_path):
    _, folder = run(tmp_path, Retention(every_n_updates=1), edits_per_update=2)
    figures = [line["figures"] for line in curve(folder)]
    assert [f["retention/efficacy_score_n"] for f in figures] == [2, 4]
    assert all(f["retention/efficacy_score"] == 1 for f in figures)


def test_retention_sees_forgetting(tmp_path):
    callback = Retention(every_n_updates=1)
    made, _ = run(tmp_path, callback, edits_per_update=2)
    with made.weights.unedited(), torch.no_grad():
        assert callback.measure(made.trainer, made)["retention/efficacy_score"] == 0


def test_retention_measures_no_more_than_the_sample(tmp_path):
    _, folder = run(tmp_path, Retention(sample=1, every_n_updates=1), edits_per_update=2)
    assert [line["figures"]["retention/efficacy_score_n"] for line in curve(folder)] == [1, 1]


@pytest.mark.slow
def test_independent_updates_are_each_measured_on_the_base_model(tmp_path):
    solver = RROME(ridge=0.01)
    made, folder = run(tmp_path, RecordResults(), ShowExamples(), solver=solver, independent_updates=True, test=True)
    assert made.update is None
    assert made.loop.edits_written == 4
    assert torch.equal(made.decoder.weight(0), made.weights.base[0])
    records = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    after = {record["case_id"]: record for record in records if record["stage"] == "after"}
    for request in made.trainer.datamodule.requests:
        with made.loop.as_edited([request]):
            (expected,) = evaluate(made.decoder, made.tokenizer, [request], EditMetrics())
        assert after[request.case_id]["efficacy"] == expected["efficacy"]
    assert made.results["after"]["efficacy_score"] == 1


@pytest.mark.slow
def test_independent_updates_are_measured_each_and_kept_as_their_mean(tmp_path):
    _, folder = run(tmp_path, Efficacy(), solver=RROME(ridge=0.01), independent_updates=True, test=True)
    lines = curve(folder)
    # Each of the four updates makes one of the four records right.
    assert [(line["edits"], line["figures"]["efficacy"]) for line in lines] == [(0, 0), (4, 0.25)]


def test_micro_batches_and_independent_updates_exclude_each_other(tmp_path):
    with pytest.raises(EditError, match="every_n_micro_batches"):
        run(tmp_path, Efficacy(every_n_micro_batches=1), solver=RROME(ridge=0.01), independent_updates=True)


def test_independent_updates_equal_runs_of_one_edit(tmp_path):
    made, _ = run(tmp_path / "all", solver=RROME(ridge=0.01), edits=3, independent_updates=True)
    data = TinyWorld(edits=3)
    for request in data.requests:
        with made.loop.as_edited([request]):
            weight = made.decoder.weight(0).clone()
        only = TinyWorld(edits=3)
        only._requests = [request]
        alone, _ = run(tmp_path / request.case_id, solver=RROME(ridge=0.01), data=only)
        torch.testing.assert_close(alone.decoder.weight(0), weight, rtol=1e-4, atol=1e-6)


def test_retention_and_independent_updates_exclude_each_other(tmp_path):
    with pytest.raises(EditError, match="so there is nothing"):
        run(tmp_path, Retention(every_n_updates=1), solver=RROME(ridge=0.01), independent_updates=True)


@pytest.mark.parametrize("kind", [FineTuning, InContext])
def test_micro_batches_are_refused_by_the_name_of_what_has_none(kind):
    with pytest.raises(EditError, match=f"wait for their update, and with `{kind.__name__}` there are none"):
        Efficacy(every_n_micro_batches=1).setup(None, kind("tiny"), "fit")


@pytest.mark.parametrize("settings", [{"every_n_updates": 0}, {"every_n_micro_batches": -1}])
def test_impossible_cadences_are_refused(settings):
    with pytest.raises(EditError, match=next(iter(settings))):
        Efficacy(**settings)


def test_records_are_written_once_for_each_stage(tmp_path):
    made, folder = run(tmp_path, RecordResults(), test=True)
    made.trainer.test(made, datamodule=made.trainer.datamodule, verbose=False)
    records = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    assert [record["stage"] for record in records] == ["before"] * 4 + ["after"] * 4
    assert {record["edits"] for record in records} == {0, 4}
