"""A sweep is fitted to its model and its records before the first run."""

import json

import pytest

from lightning_edit.cli import main as cli
from lightning_edit.commands.sweep import LAYERS, Sweep
from lightning_edit.configs import CONFIGS
from lightning_edit.errors import EditError
from lightning_edit.loading.pretrained import depth_of
from lightning_edit.metrics import EvaluationSettings
from tests.small_models import make_request

SHIPPED = CONFIGS / "sweeps" / "layers_and_clamp.yaml"


def test_layers_in_percent_are_those_of_the_model():
    layers = Sweep.load(str(SHIPPED)).for_depth(48).vary[LAYERS]
    assert layers == [[2], [7], [12], [16], [24], list(range(4, 13))]
    assert Sweep.load(str(SHIPPED)).for_depth(3).vary[LAYERS] == [[0], [1]]
    assert Sweep({LAYERS: [[3], "100%"]}).for_depth(30).vary[LAYERS] == [[3], [28]]
    assert Sweep({LAYERS: ["auto", "50%", [1]]}).for_depth(3).vary[LAYERS] == ["auto", [1]]
    assert depth_of("tiny") == 3


@pytest.mark.parametrize("wrong", ["a quarter", "10%-", "-5%", "1%-2%-3%", "5"])
def test_other_texts_are_refused(wrong):
    with pytest.raises(EditError, match="expected a list of layers, 25% or 10%-25% of the depth"):
        Sweep({LAYERS: [wrong]}).for_depth(12)


def test_more_runs_than_anybody_waits_for_are_refused_before_they_are_listed(tmp_path):
    file = tmp_path / "sweep.yaml"
    file.write_text(json.dumps({"vary": {f"model.setting_{i}": list(range(100)) for i in range(10)}}))
    with pytest.raises(EditError, match=r"`vary` asks for 100,000,000,000,000,000,000 runs, more than 10,000"):
        Sweep.load(str(file))


def test_a_figure_that_cannot_be_measured_is_replaced_or_refused():
    records = [make_request(target_true=None)]
    plan, note = Sweep({"a": [1]}).for_records(records, EvaluationSettings())
    assert plan.metric == "efficacy_accuracy"
    assert "S cannot be measured" in note
    with pytest.raises(EditError, match=r"neighborhood_score cannot be measured .* only efficacy_accuracy"):
        Sweep({"a": [1]}, metric="neighborhood_score").for_records(records, EvaluationSettings())
    full = [make_request(target_true="Paris", paraphrase_prompts=("Where?",), neighborhood_prompts=("It is in",))]
    assert Sweep({"a": [1]}).for_records(full, EvaluationSettings()) == (Sweep({"a": [1]}), None)


@pytest.mark.slow
def test_three_columns_are_compared_by_efficacy_after_one_look(tmp_path, capfd, monkeypatch):
    edits = tmp_path / "edits.csv"
    edits.write_text("subject,prompt,target_new\nPolfol Fendeb,{} likes to play the,lyre\n")
    file = tmp_path / "sweep.yaml"
    file.write_text(json.dumps({"vary": {LAYERS: ["0%"], "model.values.steps": [2]}}))
    monkeypatch.chdir(tmp_path)
    settings = ["--data", "OwnEdits", "--data.path", str(edits), "--data.preservation", "TinyWorldText"]
    settings += [
        "--model.second_moment.tokens",
        "2000",
        "--model.solver.ridge",
        "0.01",
        "--trainer.callbacks",
        "[EditReport]",
    ]
    cli.main(["sweep", str(file), *settings])
    shown = capfd.readouterr()
    assert "S cannot be measured on these records" in shown.err
    assert (tmp_path / "runs" / "sweep.png").is_file()
