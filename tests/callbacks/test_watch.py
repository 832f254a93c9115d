"""A run under watch: what a row says, that watching changes nothing, and how a resumed run goes on with it."""

import csv
import json
import random
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from lightning_edit import RROME
from lightning_edit.callbacks import Retention, Watch
from lightning_edit.cli import main as cli
from lightning_edit.datamodules import OwnEdits, TinyWorld
from lightning_edit.metrics import EditMetrics, evaluate
from lightning_edit.metrics.perplexity import perplexity_error
from lightning_edit.run.edit_callback import EditCallback
from lightning_edit.run.methods.fine_tuning import FineTuning
from lightning_edit.run.module import EditingModule
from tests.trainers import quiet_trainer
from tests.watched_runs import between, module, rows, run, write_text

TIMES = ("seconds", "edits_per_second", "seconds_to_go")
FACTS = ("efficacy_score", "efficacy_accuracy", "retention_score", "retention_accuracy", "neighborhood_score")


def figures(made, requests):
    requests = [replace(request, neighborhood_prompts=request.neighborhood_prompts[:2]) for request in requests]
    metrics = EditMetrics()
    with torch.no_grad():
        evaluate(made.decoder, made.tokenizer, requests, metrics)
    return {name: pytest.approx(float(value), rel=1e-5) for name, value in metrics.compute().items()}


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("watched")
    return run(folder, Watch(), Retention(every_n_updates=2)), rows(folder)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text"))


# -- rows --------------------------------------------------------------------------------------------------------------


def test_each_update_has_a_row(watched):
    _, found = watched
    assert [(row["update"], row["edits"]) for row in found] == [("1", "2"), ("2", "4"), ("3", "6")]


def test_figures_are_those_of_new_and_of_earlier_edits(watched):
    made, found = watched
    requests = made.requests
    new, earlier = figures(made, requests[4:]), figures(made, requests[:4])
    last = {name: float(found[-1][name]) for name in FACTS}
    assert last == {
        "efficacy_score": new["efficacy_score"],
        "efficacy_accuracy": new["efficacy_accuracy"],
        "retention_score": earlier["efficacy_score"],
        "retention_accuracy": earlier["efficacy_accuracy"],
        "neighborhood_score": earlier["neighborhood_score"],
    }
    assert found[0]["retention_score"] == ""
    assert found[0]["neighborhood_score"] != ""


def test_figures_of_a_sample_have_their_standard_error(watched):
    made, found = watched
    new, earlier = figures(made, made.requests[4:]), figures(made, made.requests[:4])
    for name in ("efficacy_score", "efficacy_accuracy"):
        assert float(found[-1][f"{name}_stderr"]) == new[f"{name}_stderr"]
        retention = name.replace("efficacy", "retention")
        assert float(found[-1][f"{retention}_stderr"]) == earlier[f"{name}_stderr"]
    assert float(found[-1]["neighborhood_score_stderr"]) == earlier["neighborhood_score_stderr"]


def test_perplexity_has_the_standard_error_of_its_windows(tmp_path, text):
    run(tmp_path, Watch(perplexity_file=str(text)))
    assert all(0 < float(row["perplexity_stderr"]) < float(row["perplexity"]) for row in rows(tmp_path))
    windows = torch.rand(8, 5, generator=torch.manual_seed(0), dtype=torch.float64)
    expected = windows.mean().exp() * windows.mean(1).std() / 8**0.5
    assert perplexity_error(list(windows)) == pytest.approx(float(expected))
    assert perplexity_error(list(windows[:1])) is None


def test_norms_are_those_of_the_weights(watched):
    made, found = watched
    norm, base = (float(weight.double().norm()) for weight in (made.decoder.weight(0), made.weights.base[0]))
    assert float(found[-1]["layer_0/weight_norm"]) == pytest.approx(norm, rel=1e-5)
    assert float(found[-1]["layer_0/weight_growth"]) == pytest.approx(norm / base, rel=1e-5)
    for name in ("update_norm", "preservation_error", "memorization_error", "preservation_condition", "keys_condition"):
        assert all(float(row[f"layer_0/{name}"]) > 0 for row in found)


def test_time_to_go_ends_at_nothing(watched):
    _, found = watched
    to_go = [float(row["seconds_to_go"]) for row in found]
    assert to_go[0] > to_go[-1] == 0
    for row in found:
        assert float(row["edits_per_second"]) == pytest.approx(2 / float(row["seconds"]), rel=1e-4)


def test_what_others_measured_comes_late_and_has_columns(watched):
    made, found = watched
    name = "retention/efficacy_magnitude"
    assert [row[name] != "" for row in found] == [False, True, False]  # at the end it is measured after the row
    assert list(found[0])[-1].startswith("retention/")  # new columns stand behind
    assert f"{name}_stderr" not in found[0]
    told = {line["edits"]: line["figures"][name] for line in made.curves if name in line["figures"]}
    assert float(found[1][name]) == pytest.approx(told[4], rel=1e-5)


def test_loggers_get_the_figures_against_the_edits(tmp_path):
    logger = CSVLogger(tmp_path, name=None)
    run(tmp_path, Watch(), logger=logger)
    folder = tmp_path / "version_0"
    with (folder / "updates.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    with (folder / "metrics.csv").open(newline="") as file:
        logged = [line for line in csv.DictReader(file) if line["update/seconds"]]
    assert [line["step"] for line in logged] == ["2", "4", "6"]
    for line, row in zip(logged, table, strict=True):
        for name in (*FACTS, *TIMES):
            shown = line[f"update/{name}"]
            assert (shown == "") == (row[name] == "")
            assert shown == "" or float(shown) == pytest.approx(float(row[name]), rel=1e-5)
    assert not [name for name in logged[0] if name.startswith("update/layer")]  # the module logs them


def test_progress_tells_efficacy_and_time_to_go(tmp_path):
    told = []

    class Shown(EditingModule):
        @property
        def report(self):
            return lambda stage, done, total, **figures: told.append((stage, done, total, figures))

    made = Shown("tiny", **{name: value for name, value in module().hparams.items() if name != "model"})
    quiet_trainer(tmp_path, Watch()).fit(made, datamodule=TinyWorld(edits=6))
    updates = [entry for entry in told if entry[0] == "updates (edits)"]
    assert [(done, total) for _, done, total, _ in updates] == [(2, 6), (4, 6), (6, 6)]
    assert list(updates[-1][3]) == ["minutes_to_go", "efficacy", "retention"]


# -- costs and traces --------------------------------------------------------------------------------------------------


def test_samples_are_bounded(tmp_path):
    made = run(tmp_path, Watch(sample=1))
    new = made.requests[4:]
    random.Random(0).shuffle(order := list(made.requests))
    chosen = [request for request in order if request in new][:1]
    earlier = [request for request in order if request not in new][:1]
    row = rows(tmp_path)[-1]
    assert float(row["efficacy_accuracy"]) == figures(made, chosen)["efficacy_accuracy"]
    assert float(row["neighborhood_score"]) == figures(made, earlier)["neighborhood_score"]


class Compared(Watch):
    """Disturbs what a careless measurement could disturb, and compares it before and after watching."""

    same = ()

    def _measure(self, module, new):
        random.random(), np.random.rand(), torch.rand(1)
        module.model.train()
        module.model.requires_grad_(True)
        return super()._measure(module, new)

    def on_edits_written(self, trainer, pl_module):
        before = self.state(pl_module)
        super().on_edits_written(trainer, pl_module)
        self.same += tuple(
            torch.equal(old, new) if isinstance(old, torch.Tensor) else old == new
            for old, new in zip(before, self.state(pl_module), strict=True)
        )

    @staticmethod
    def state(made):
        flags = [m.training for m in made.modules()], [p.requires_grad for p in made.parameters()]
        drawn = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
        return *flags, *drawn, made.decoder.weight(0).clone()


@pytest.mark.slow
def test_watching_leaves_no_trace(tmp_path, text):
    watch = Compared(perplexity_file=str(text), perplexity_windows=2, max_perplexity_factor=None)
    measured = run(tmp_path / "a", watch)
    assert len(watch.same) == 18
    assert all(watch.same)
    alone = run(tmp_path / "b")
    assert torch.equal(measured.decoder.weight(0), alone.decoder.weight(0))


class Passes(Watch):
    """Counts how often the model runs while it is watched."""

    count = 0

    def on_edits_written(self, trainer, pl_module):
        hook = pl_module.model.register_forward_hook(lambda *_: setattr(self, "count", self.count + 1))
        super().on_edits_written(trainer, pl_module)
        hook.remove()


@pytest.mark.parametrize(
    "settings",
    [{"edits_per_update": None}, {"edits_per_update": 6}, {"solver": RROME(ridge=0.01), "independent_updates": True}],
)
def test_updates_that_are_measured_anyway_cost_nothing(tmp_path, settings):
    watch = Passes(max_growth=1.00001)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        run(tmp_path, watch, **settings)
    # A single update changes the model that is kept, independent ones are all undone.
    assert any("times as large" in str(warning.message) for warning in told) == ("solver" not in settings)
    found = rows(tmp_path)
    assert watch.count == 0
    assert len(found) == (6 if "solver" in settings else 1)
    assert not set(found[0]) & set(FACTS)
    assert float(found[0]["layer_0/weight_growth"]) > 1


def test_independent_updates_have_no_perplexity_of_their_own(tmp_path, text):
    watch = Passes(perplexity_file=str(text), perplexity_windows=2)
    run(tmp_path, watch, solver=RROME(ridge=0.01), independent_updates=True, data=TinyWorld(edits=2))
    assert watch.count == 0
    assert "perplexity" not in rows(tmp_path)[0]


def test_fewer_measurements_keep_a_row_for_each_update(tmp_path):
    watch = Passes(every_n_updates=2)
    run(tmp_path, watch)
    assert watch.count > 0
    assert [row["efficacy_score"] != "" for row in rows(tmp_path)] == [False, True, False]
    assert all(row["layer_0/update_norm"] for row in rows(tmp_path))


def test_fine_tuning_has_nothing_to_watch(tmp_path):
    made = FineTuning("tiny", [0], lr=0.01)
    quiet_trainer(tmp_path, Watch(), epochs=2).fit(made, datamodule=TinyWorld(edits=2))
    assert made.loop.edits_written == 2
    assert not (tmp_path / "lightning_edit_run" / "version_0" / "updates.csv").exists()


# -- edits that replace each other -------------------------------------------------------------------------------------


def test_a_replaced_edit_is_not_forgotten(tmp_path):
    world = [request for request in TinyWorld(edits=6).requests if request.target_true]
    first, second, third = world[:3]
    records = [
        {"case_id": i, "subject": request.subject, "prompt": request.prompt, "target_new": target}
        for i, (request, target) in enumerate(
            [(first, first.target_new), (second, second.target_new), (first, third.target_true), (third, "Rome")]
        )
    ]
    (tmp_path / "edits.json").write_text(json.dumps(records))
    data = OwnEdits(str(tmp_path / "edits.json"), conflicts="replace", preservation=TinyWorld().preservation)
    made = run(tmp_path, Watch(), Retention(every_n_updates=1), data=data)
    assert made.loop.edits_written == 4
    assert [line["figures"]["retention/efficacy_accuracy_n"] for line in made.curves] == [2, 3]
    # The first edit holds no longer; the second does, and it is the only earlier one that counts.
    assert figures(made, data.requests[:1])["efficacy_accuracy"] == 0
    assert figures(made, data.requests[1:2])["efficacy_accuracy"] == 1
    assert float(rows(tmp_path)[1]["retention_accuracy"]) == 1


# -- going on ----------------------------------------------------------------------------------------------------------


class Saved(EditCallback):
    """Saves a checkpoint when an update is kept, and fails after another."""

    def __init__(self, file, at=None, fail_at=None):
        self.file, self.at, self.fail_at = file, at, fail_at

    def on_update_kept(self, trainer, pl_module):
        if pl_module.loop.updates_written == self.at:
            trainer.save_checkpoint(self.file)
        if pl_module.loop.updates_written == self.fail_at:
            raise InterruptedError("killed")


@pytest.mark.slow
def test_a_resumed_run_leaves_the_same_table(tmp_path, watched):
    limit = between(watched[1])
    file = tmp_path / "lightning_edit_run" / "version_0" / "checkpoints" / "run.ckpt"
    with pytest.raises(InterruptedError), pytest.warns(UserWarning, match="may be degrading"):
        # Retention is measured for the first time in the update after the checkpoint: the header was shorter there.
        run(tmp_path, Watch(max_growth=limit), Retention(every_n_updates=3), Saved(file, at=2, fail_at=3))
    assert len(rows(tmp_path)) == 3
    made = module()
    runner = quiet_trainer(tmp_path, watch := Watch(max_growth=limit), Retention(every_n_updates=3))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "The model may be degrading")  # it was said already
        runner.fit(made, datamodule=TinyWorld(edits=6), ckpt_path=file, weights_only=True)
    whole = tmp_path / "whole"
    with pytest.warns(UserWarning, match="may be degrading"):
        run(whole, Watch(max_growth=limit), Retention(every_n_updates=3))
    assert [plain(row) for row in rows(tmp_path)] == [plain(row) for row in rows(whole)]
    assert watch.state_dict()["rows"] == 3
    assert watch.state_dict()["edits"] == 6


def plain(row):
    return {name: value for name, value in row.items() if name not in TIMES}


@pytest.mark.slow
def test_a_new_run_does_not_go_on_with_an_old_table(tmp_path):
    for edits in (3, 2):
        run(tmp_path, Watch(), data=TinyWorld(edits=edits), edits_per_update=1)
    assert [row["edits"] for row in rows(tmp_path)] == ["1", "2", "3"]
    assert [row["edits"] for row in rows(tmp_path, "version_1")] == ["1", "2"]


def test_a_checkpoint_that_is_measured_again_needs_no_watched_text(finished, tmp_path):
    (tmp_path / "short.txt").write_text("Too short.")
    words = ["test", "--ckpt_path", str(finished / "edited.ckpt"), "--trainer.logger.save_dir", str(tmp_path)]
    cli.main([*words, "--watch.perplexity_file", str(tmp_path / "short.txt")])
    assert (tmp_path / "version_0" / "metrics.json").is_file()
