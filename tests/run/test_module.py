"""The Lightning module: what happens when, what comes out, and that it can be loaded again."""

import json
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoModelForCausalLM, AutoTokenizer

from lightning_edit import EMMET, MEMIT, ROME, RROME, EditError, ModelUpdate, ValueSettings, edit
from lightning_edit.callbacks import EditReport, ExportEdits
from lightning_edit.datamodules import TinyWorld
from lightning_edit.keys.layer_stats import SecondMomentSettings
from lightning_edit.loading.pretrained import load_model, load_tokenizer
from lightning_edit.models.decoder import find_decoder
from lightning_edit.run.module import EditingModule
from lightning_edit.run.trainer_check import check_trainer
from tests.trainers import quiet_trainer

VALUES = ValueSettings(lr=0.5, steps=12, clamp_norm_factor=4.0)
MOMENT = SecondMomentSettings(tokens=4000)


def module(**changes):
    settings = {"solver": EMMET(1.0, ridge=0.01), "values": VALUES, "second_moment": MOMENT, "layers": [0]}
    return EditingModule("tiny", **{**settings, **changes})


def trainer(folder, *callbacks, logger=None):
    return quiet_trainer(folder, *callbacks, logger=logger or TensorBoardLogger(folder, name=None))


def run(folder, edits=6, batch_size=64, callbacks=(), logger=None, **changes):
    made, data = module(**changes), TinyWorld(edits=edits, batch_size=batch_size)
    runner = trainer(folder, EditReport(table=False), ExportEdits(), *callbacks, logger=logger)
    runner.test(made, datamodule=data, verbose=False)
    runner.fit(made, datamodule=data)
    runner.test(made, datamodule=data, verbose=False)
    return made, runner


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    made, runner = run(tmp_path_factory.mktemp("run"))
    return made, runner, Path(runner.log_dir)


class Order(Callback):
    """Notes whether the weights are edited at each hook near the end of a fit."""

    def __init__(self):
        self.seen = []

    def note(self, name, pl_module):
        layer = pl_module.layers[0]
        edited = not torch.equal(pl_module.decoder.weight(layer).cpu(), pl_module.weights.base[layer].cpu())
        self.seen.append((name, edited))

    def on_train_end(self, trainer, pl_module):
        self.note("on_train_end", pl_module)

    def on_fit_end(self, trainer, pl_module):
        self.note("on_fit_end", pl_module)

    def teardown(self, trainer, pl_module, stage):
        if stage == "fit":
            self.note("teardown", pl_module)


def test_callbacks_see_the_edited_model_first_in_teardown(tmp_path):
    order = Order()
    run(tmp_path, edits=2, callbacks=[order])
    assert order.seen == [("on_train_end", False), ("on_fit_end", False), ("teardown", True)]


def test_metrics_json_holds_what_is_promised(finished):
    made, _, folder = finished
    written = json.loads((folder / "metrics.json").read_text())
    assert set(written) == {
        *("before", "after", "edits", "left_out", "not_made", "stopped"),
        *("records_left_out", "seconds", "config", "command", "settings_without_effect", "memory", "versions"),
    }
    assert written["edits"] == 6
    stages = {"contexts", "values", "second_moments", "solve", "checkpoints", "evaluate", "load"}
    assert set(written["seconds"]) == stages
    assert all(seconds > 0 for stage, seconds in written["seconds"].items() if stage != "checkpoints")
    assert written["after"] == pytest.approx(made.results["after"])
    assert written["before"]["efficacy_score"] == 0
    assert written["after"]["efficacy_score"] >= 0.8
    assert written["config"]["model"]["layers"] == [0]


def test_exported_folder_gives_the_new_answers(finished):
    made, _, folder = finished
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    request = made.trainer.datamodule.requests[0]
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, made.model.state_dict()[name])
    prompt = tokenizer(request.rewrite_prompt, return_tensors="pt")["input_ids"]
    generated = tokenizer.decode(model.generate(prompt, max_new_tokens=4, do_sample=False)[0, prompt.shape[1] :])
    assert generated.strip().startswith(request.target_new) == bool(made.results["after"]["efficacy_accuracy"] == 1.0)


def test_update_file_turns_the_base_into_the_edited_model_and_back(finished):
    made, _, folder = finished
    update = ModelUpdate.load(folder / "update.safetensors")
    base = load_model("tiny")
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    update.insert(base)
    for name, tensor in base.state_dict().items():
        assert torch.equal(tensor, made.model.state_dict()[name])
    update.remove(base)
    for name, tensor in base.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert update.info["edits"] == 6
    assert "EMMET" in update.info["solver"]


def test_checkpoint_holds_edited_tensors_only_and_measures_the_same(finished, tmp_path):
    made, _, folder = finished
    path = folder / "edited.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    assert list(checkpoint["state_dict"]) == [f"model.{made.decoder.names[0]}.weight"]
    fresh = module()
    trainer(tmp_path).test(fresh, datamodule=TinyWorld(edits=6), ckpt_path=path, verbose=False, weights_only=True)
    assert fresh.results["after"] == made.results["after"]
    assert fresh.results["before"] == made.results["before"]


def test_before_is_not_shown_for_other_records(finished, tmp_path):
    fresh, path = module(), finished[2] / "edited.ckpt"
    with pytest.warns(UserWarning, match="not the records of the checkpoint's run"):
        trainer(tmp_path).test(fresh, datamodule=TinyWorld(edits=3), ckpt_path=path, verbose=False, weights_only=True)
    assert set(fresh.results) == {"after"}


def test_checkpoint_of_another_model_is_refused(finished, tmp_path):
    fresh, path = module(dtype="bfloat16"), finished[2] / "edited.ckpt"
    with pytest.raises(EditError, match="made from other weights"):
        trainer(tmp_path).test(fresh, datamodule=TinyWorld(edits=3), ckpt_path=path, weights_only=True)


def test_tensorboard_shows_losses_norms_and_metrics(finished):
    events = EventAccumulator(str(finished[2])).Reload()
    scalars = set(events.Tags()["scalars"])
    assert {"values/loss", "values/nll", "values/kl", "values/weight_decay"} <= scalars
    assert {"value_search/z0_norm", "value_search/delta_norm", "value_search/steps"} <= scalars
    assert {"layer_0/update_norm", "layer_0/update_norm_per_edit"} <= scalars
    assert [event.step for event in events.Scalars("edit/efficacy_score")] == [0, 6]
    assert len(events.Scalars("values/loss")) == VALUES.steps
    assert "value_search_each/delta_norm" in events.Tags()["histograms"]


@pytest.mark.slow
def test_same_seed_gives_the_same_weights(finished, tmp_path):
    again, _ = run(tmp_path)
    assert torch.equal(again.decoder.weight(0), finished[0].decoder.weight(0))


def test_micro_batches_do_not_change_the_update(finished, tmp_path):
    split, _ = run(tmp_path, batch_size=4)
    torch.testing.assert_close(split.decoder.weight(0), finished[0].decoder.weight(0), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("solver", [ROME(ridge=0.01), RROME(ridge=0.01), MEMIT(1.0, ridge=0.01)])
@pytest.mark.slow
def test_every_solver_runs_and_several_layers_share_the_residual(solver, tmp_path):
    made, _ = run(tmp_path, edits=3, solver=solver, layers=[0, 1], logger=CSVLogger(tmp_path))
    assert made.loop.edits_written == 3
    assert set(made.update.layers) == {0, 1}
    assert made.results["after"]["efficacy_magnitude"] > made.results["before"]["efficacy_magnitude"]


@pytest.mark.slow
def test_sequential_updates_equal_editing_one_after_the_other(tmp_path):
    solver = RROME(ridge=0.01)
    made, _ = run(tmp_path, edits=3, solver=solver)
    model, tokenizer = load_model("tiny"), load_tokenizer("tiny")
    edit(
        model,
        tokenizer,
        made.trainer.datamodule.requests,
        solver,
        layers=[0],
        values=VALUES,
        moments=made.loop.editor.moments,
        templates=made.templates,
        progress=False,
    )
    assert torch.equal(find_decoder(model).weight(0), made.decoder.weight(0))


def test_mlp_site_with_several_layers_is_refused(tmp_path):
    with pytest.raises(EditError, match=r"site: mlp.*layers \[0, 1\]"):
        run(tmp_path, edits=2, layers=[0, 1], values=ValueSettings(site="mlp"))


def test_too_little_text_names_layer_rank_and_remedy_before_anything_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr("lightning_edit.run.measuring.evaluate", lambda *_: pytest.fail("the model was evaluated"))
    with pytest.raises(EditError, match=r"layer 0 has rank \d+ of \d+.*second_moment\.tokens.*ridge"):
        run(tmp_path, edits=2, solver=EMMET(1.0), second_moment=SecondMomentSettings(tokens=50))


def test_one_bad_edit_is_left_out_of_a_sequential_run(tmp_path, caplog):
    made, data = module(solver=RROME(ridge=0.01)), TinyWorld(edits=3)
    made.configure_model()
    ids = [set(made.tokenizer(request.subject)["input_ids"]) for request in data.requests]
    only_first = sorted(ids[0] - ids[1] - ids[2])
    weight = made.model.get_input_embeddings().weight
    bad = torch.nn.Parameter(weight.detach().clone(), requires_grad=False)
    bad[only_first[0]] = float("nan")
    made.model.get_input_embeddings().weight = bad
    data.preservation.texts = lambda: (s for s in data.requests[1].paraphrase_prompts * 400)
    trainer(tmp_path).fit(made, datamodule=data)
    assert made.loop.edits_written == 2
    assert made.loop.left_out == [data.requests[0].name]
    assert f"{data.requests[0].name}: the loss is not a finite number" in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_epochs": 2}, "max_epochs"),
        ({"precision": "bf16-true"}, "model.dtype"),
    ],
)
def test_trainers_that_do_not_suit_are_refused(settings, message, tmp_path):
    runner = Trainer(**{"max_epochs": 1, "accelerator": "cpu", "logger": False, **settings})
    with pytest.raises(EditError, match=message):
        check_trainer(runner, fit=True)
        runner.fit(module(), datamodule=TinyWorld(edits=2))


def test_a_model_in_the_output_folder_is_never_replaced(tmp_path):
    (tmp_path / "mine" / "model").mkdir(parents=True)
    runner = trainer(tmp_path, ExportEdits(), logger=TensorBoardLogger(tmp_path, name="", version="mine"))
    with pytest.raises(EditError, match="never replaced"):
        runner.fit(module(), datamodule=TinyWorld(edits=2))
