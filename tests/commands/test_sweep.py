"""A sweep is fitted to its model and its records before the first run."""

import json
import math
from dataclasses import replace

import pytest

from lightning_edit.cli import main as cli
from lightning_edit.cli.sweep import _compare
from lightning_edit.commands.sweep import LAYERS, Sweep
from lightning_edit.configs import CONFIGS
from lightning_edit.errors import EditError
from lightning_edit.loading.pretrained import depth_of, load_model
from lightning_edit.metrics import EditMetrics, EvaluationSettings, evaluate
from lightning_edit.metrics.measurable import measurable
from lightning_edit.metrics.ways import Way
from lightning_edit.models.decoder import find_decoder
from tests.run_folders import write
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


LONG = " ".join(["lyre"] * 30)
SHORT = " ".join(["instrument"] * 4)


def test_figures_of_long_answers_are_those_that_a_run_measures(tiny_tokenizer):
    decoder = find_decoder(load_model("tiny"))
    short = make_request(prompt="{} likes to play the", target_new=SHORT, paraphrase_prompts=("Polfol plays the",))
    records, settings, metrics = [short], EvaluationSettings(), EditMetrics(sync_on_compute=False)
    assert "generated_rouge_l" not in measurable(records, settings, tiny_tokenizer)
    records.append(replace(short, target_new=LONG))
    evaluate(decoder, tiny_tokenizer, records, metrics, settings)
    measured = {name for name in metrics.compute() if not name.endswith(("_stderr", "_n"))}
    assert set(measurable(records, settings, tiny_tokenizer)) == measured
    for metric in ("efficacy_nll", "paraphrase_nll", "generated_rouge_l", "generated_paraphrase_rouge_l"):
        plan = Sweep({"a": [1]}, metric=metric)
        assert plan.for_records(records, settings, tiny_tokenizer) == (plan, None)
        with pytest.raises(EditError, match=f"{metric} cannot be measured on these records"):
            plan.for_records([short], settings, tiny_tokenizer)


def test_figures_of_other_ways_are_those_of_a_chat(tiny_tokenizer):
    request = make_request(target_true="Paris", paraphrase_prompts=("Where?",), neighborhood_prompts=("It is in",))
    plan, ways = Sweep({"a": [1]}, metric="plain_S"), [Way("plain", tiny_tokenizer), Way("system_1", tiny_tokenizer)]
    assert plan.for_records([request], EvaluationSettings(), tiny_tokenizer, ways) == (plan, None)
    for metric, asked in (("plain_S", ()), ("system_1_S", ways), ("plain_generated_match", ways)):
        with pytest.raises(EditError, match=f"{metric} cannot be measured on these records"):
            Sweep({"a": [1]}, metric=metric).for_records([request], EvaluationSettings(), tiny_tokenizer, asked)


def test_a_way_that_a_model_in_plain_text_has_not_is_refused_before_the_first_run(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweep.yaml").write_text(json.dumps({"vary": {"model.values.steps": [2]}, "metric": "plain_S"}))
    with pytest.raises(SystemExit) as ended:
        cli.main(["sweep", "sweep.yaml", "--data.edits", "2"])
    assert ended.value.code == 2
    assert "`metric`: plain_S cannot be measured" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.yaml"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"vary": {"model.values.steps": [2]}, "metric": ["S"]}, r"`metric` must be the name of one figure.*\['S'\]"),
        ({"vary": {"model.values.steps": [2]}, "metric": None}, "`metric` must be the name of one figure.*None"),
        ({"vary": {}}, "`vary` is empty: give a setting with a list of values"),
    ],
)
def test_a_file_that_says_something_else_is_refused(content, message, tmp_path):
    (tmp_path / "sweep.yaml").write_text(json.dumps(content))
    with pytest.raises(EditError, match=message):
        Sweep.load(str(tmp_path / "sweep.yaml"))


def test_what_is_no_number_comes_last(tmp_path, capsys):
    figures = {"worst": 0.1, "broken": float("nan"), "best": 0.9, "middle": 0.5, "broken too": float("nan")}
    finished = []
    for name, S in figures.items():
        folder = write(tmp_path / "runs" / name, S=None if math.isnan(S) else S, ridge=len(finished))
        finished.append((name, S, str(folder)))
    _compare("S", finished, "sweep.png")
    shown = capsys.readouterr().out
    places = [shown.index(f"\n{name} ") for name in ("best", "middle", "worst", "broken", "broken too")]
    assert places == sorted(places)


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


GRADIENTS = ["--config", str(CONFIGS / "solvers" / "ultraedit.yaml"), "--data.edits=2", "--collateral.prompts=0"]


@pytest.mark.slow
def test_a_setting_out_of_its_range_is_left_out_before_the_first_fit(tmp_path, capfd, monkeypatch):
    """Refusals of a nested class arrive as the parser's ValueError; the first value is the one that is refused."""
    file = tmp_path / "sweep.yaml"
    file.write_text(json.dumps({"vary": {"model.source.eta": [0.0, 0.001, "much"], LAYERS: ["10%"]}}))
    monkeypatch.chdir(tmp_path)
    cli.main(["sweep", str(file), *GRADIENTS])
    shown = capfd.readouterr()
    before, _, after = shown.err.partition("1 of 1: eta=0.001 layers=[0]")
    assert "left out: eta=0.0 layers=[0]: `source.eta` must be a number above 0, got 0.0." in before
    assert 'left out: eta="much" layers=[0]: Parser key "model":' in before
    assert "left out" not in after
    assert "eta=0.001 layers=[0]" in shown.out
    assert [path.name for path in (tmp_path / "runs").glob("version_*")] == ["version_0"]


def test_a_sweep_of_which_nothing_can_be_run_says_why(tmp_path, capfd):
    file = tmp_path / "sweep.yaml"
    file.write_text(json.dumps({"vary": {"model.source.eta": [0.0, -1.0]}}))
    with pytest.raises(SystemExit) as left:
        cli.main(["sweep", str(file), *GRADIENTS])
    assert left.value.code == 2
    shown = capfd.readouterr().err
    assert "No combination of the sweep could be run" in shown
    assert "eta=-1.0: `source.eta` must be a number above 0, got -1.0." in shown


def test_a_mistake_in_the_settings_of_all_fits_is_said_once(tmp_path, capfd):
    file = tmp_path / "sweep.yaml"
    file.write_text(json.dumps({"vary": {"model.source.eta": [0.1, 0.2, 0.3]}, "fixed": {"data.edit": 3}}))
    with pytest.raises(SystemExit):
        cli.main(["sweep", str(file), *GRADIENTS])
    shown = capfd.readouterr().err
    assert shown.count("Option 'edit' is not accepted") == 1
    assert "eta=" not in shown
