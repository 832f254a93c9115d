"""The real command line: what a run leaves, and what a mistake gets."""

import gc
import json
import shutil
import signal
from pathlib import Path

import pytest

from lightning_edit.cli import main as cli
from lightning_edit.cli import sweep
from tests.killing import Command

SMALL = ["--model.values.steps", "3", "--model.second_moment.tokens", "4000", "--collateral.prompts", "0"]


def command(tmp_path, *args):
    """Runs the command line with its output in a temporary folder."""
    cli.main(
        [*args, "--trainer.logger.save_dir", str(tmp_path), "--model.second_moment.cache_dir", str(tmp_path / "c")]
    )
    return tmp_path / "version_0"


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_fit_prints_before_and_after_and_test_measures_the_checkpoint(tmp_path, capsys):
    folder = command(tmp_path, "fit", *SMALL, "--data.edits", "2")
    shown = capsys.readouterr().out
    assert "2 edits" in shown
    assert "efficacy" in shown
    assert "->" in shown
    assert "target" in shown
    assert (folder / "model" / "model.safetensors").is_file()
    assert (folder / "update.safetensors").is_file()
    assert (folder / "config.yaml").is_file()
    measured = command(tmp_path / "test", "test", "--ckpt_path", str(folder / "edited.ckpt"))
    first, second = metrics(folder), metrics(measured)
    assert second["after"] == first["after"]
    assert second["before"] == first["before"]
    assert (first["command"], second["command"]) == ("fit", "test")


@pytest.mark.slow
def test_saved_config_runs_again_to_the_same_figures(finished, tmp_path):
    folder = command(tmp_path, "fit", "--config", str(finished / "config.yaml"))
    assert metrics(folder)["after"] == metrics(finished)["after"]


@pytest.mark.parametrize(
    ("args", "messages"),
    [
        (["--model.layers", "[9]"], ["`layers` must be different numbers from 0 to", "[9]"]),
        (["--model.model", "./no-such-folder"], ["there is no folder ./no-such-folder"]),
        (["--model.nokey", "1"], ["nokey", "Accepted by EditingModule:", "layers"]),
        (["--model.values.rate", "1"], ["Accepted by ValueSettings:", "weight_decay"]),
        (["--model.solver.init_args.lam", "1"], ["'lam' is not accepted", "emmet_lambda"]),
        (["--model.solver", "NOPE"], ["Known classes: AlphaEdit, EMMET, MEMIT, OutputMEMIT, ROME, RROME"]),
        (["--model.layers", "abc"], ["layers", "list", "abc"]),
        (["--model.layers", "5-3"], ["`--model.layers` must be numbers of blocks such as 5, 3-8 or 3,4,5, got 5-3"]),
        (["--trainer.max_epochs", "many"], ["Expected a whole number\n", "Given value: many\n"]),
        (["--model.write", "inside"], ["Expected one of 'merged', 'beside'. Got value: inside"]),
        (["--data.edits", "0"], ["`data.edits` must be a whole number of 1 or more, got 0"]),
        (["--data", "CounterFact", "--data.path", "none.json"], ["`data.path`: there is no file none.json"]),
        (["--data.preservation", "TextFile", "--data.preservation.path", "none.txt"], ["there is no file none.txt"]),
        (
            ["--model.second_moment.tokens", "100", "--model.solver.ridge", "0", "--collateral.prompts", "0"],
            ["layer 0 has rank", "second_moment.tokens", "ridge"],
        ),
        (
            ["--model.solver.second_moment_weight", "0"],
            ["EMMET: `second_moment_weight` must be a number above 0"],
        ),
        (
            ["--trainer.logger+=NopeLogger"],
            ["Known classes: CSVLogger, CometLogger, DummyLogger, MLFlowLogger, TensorBoardLogger, WandbLogger\n"],
        ),
        (["--model", "NOPE"], ["Known classes: CrispEdit, EditingModule, FineTuning"]),
        (["--model.evaluation.foo", "true"], ["Accepted by EvaluationSettings: generate"]),
        (["--model.evaluation.top_k", "0"], ["`model.evaluation.top_k` must be a whole number of 1 or more"]),
        (["--retention.evry", "1"], ["Accepted under retention: every_n_micro_batches, every_n_updates"]),
        (["--downstream.tasks", "nope"], ["nope", "sst"]),
        (["--trainer.max_epochs", "2"], ["set `trainer.max_epochs` to 1, got 2"]),
        (["--config", "configs/solvers/ft.yaml"], ["second_moment", "Accepted by FineTuning:", "norm_constraint"]),
        (["--ckpt_path", "none.ckpt"], ["there is no file none.ckpt"]),
    ],
)
def test_a_mistake_gets_one_clear_message(args, messages, tmp_path, capfd):
    with pytest.raises(SystemExit) as left:
        command(tmp_path, "fit", *args)
    shown = capfd.readouterr().err
    assert left.value.code == 2
    assert "Traceback" not in shown
    for internal in ("usage:", "NestedArg", "Namespace(", "<class ", "typing."):
        assert internal not in shown
    for message in messages:
        assert message in shown


MODEL = "model: {class_path: EditingModule, init_args: {%s}}"
FILES = {
    MODEL % "nokey: 1": ["'nokey' is not accepted", "Accepted by EditingModule: model, layers"],
    MODEL % "values: {rate: 1}": ["'rate'", "Accepted by ValueSettings: lr, steps"],
    MODEL % "evaluation: {rate: 1}": ["'rate'", "Accepted by EvaluationSettings: generate"],
    MODEL % "solver: {class_path: NOPE}": ["NOPE", "Known classes: AlphaEdit, EMMET, MEMIT, OutputMEMIT, ROME, RROME"],
    MODEL % "solver: {class_path: EMMET, init_args: {lam: 1}}": ["'lam' is not accepted", "Accepted by EMMET: "],
    "retention: {evry: 1}": ["retention.evry", "Accepted under retention: every_n_micro_batches"],
    "nokey: 1": ["'nokey'", "Accepted under the top level: checkpoints, ckpt_path, collateral, config, data"],
}


@pytest.mark.parametrize("content", FILES)
def test_a_mistake_in_a_file_is_answered_with_what_is_accepted_there(content, tmp_path, capfd):
    (tmp_path / "own.yaml").write_text(content)
    with pytest.raises(SystemExit) as left:
        command(tmp_path, "fit", "--config", str(tmp_path / "own.yaml"))
    shown = capfd.readouterr().err
    assert left.value.code == 2
    assert all(message in shown for message in FILES[content])


def test_a_wrong_value_is_not_answered_with_names(tmp_path, capfd):
    (tmp_path / "own.yaml").write_text(MODEL % "layers: abc")
    with pytest.raises(SystemExit):
        command(tmp_path, "fit", "--config", str(tmp_path / "own.yaml"))
    shown = capfd.readouterr().err
    assert "abc" in shown
    assert "Accepted" not in shown


def test_fine_tuning_without_epochs_is_refused(tmp_path, capfd):
    with pytest.raises(SystemExit):
        cli.main(["fit", "--config", "configs/solvers/ft.yaml", "--trainer.max_epochs=0", "--trainer.logger=false"])
    assert "`trainer.max_epochs` to 1 or more" in capfd.readouterr().err


@pytest.mark.parametrize("content", ["The Eiffel Tower", "subject,prompt\na,b\n", ""])
def test_a_text_file_is_no_checkpoint(content, tmp_path, capfd):
    (tmp_path / "notes.txt").write_text(content)
    with pytest.raises(SystemExit) as left:
        command(tmp_path, "test", "--ckpt_path", str(tmp_path / "notes.txt"))
    assert left.value.code == 2
    assert "cannot be used" in capfd.readouterr().err


@pytest.mark.slow
def test_a_checkpoint_is_measured_as_asked(finished, tmp_path):
    asked = ("--ckpt_path", f"{finished}/edited.ckpt", "--model.evaluation.generated_match", "true")
    assert "generated_match" in metrics(command(tmp_path, "test", *asked))["after"]


@pytest.mark.slow
def test_an_unedited_model_is_measured_as_well(tmp_path, capsys):
    command(tmp_path, "test", "--data.edits", "2")
    assert "neighborhood" in capsys.readouterr().out


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 1)])
@pytest.mark.slow
def test_a_run_that_is_stopped_says_so_and_is_no_success(sent, status, tmp_path):
    args = ["fit", "--data.edits=40", "--data.batch_size=1", "--model.solver=RROME", "--model.solver.ridge=0.01"]
    args += ["--retention.every_n_updates=1", "--retention.sample=1"]
    args += [f"--trainer.logger.save_dir={tmp_path}", f"--model.second_moment.cache_dir={tmp_path / 'c'}"]
    running = Command(args, tmp_path / "log")
    while not (tmp_path / "version_0" / "curves.jsonl").is_file():
        assert running.wait(0.1) == [None], running.output
    running.send(sent)
    assert running.wait() == [status], running.output
    assert "Stopped. What was measured so far is in" in running.output.replace("\n", " ")
    assert metrics(tmp_path / "version_0")["before"]["efficacy_score"] == 0


def test_a_pickle_is_never_run(tmp_path, capfd):
    import pickle

    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    (tmp_path / "evil.ckpt").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(SystemExit):
        command(tmp_path, "test", "--ckpt_path", str(tmp_path / "evil.ckpt"))
    assert "cannot be used" in capfd.readouterr().err
    assert not (tmp_path / "ran").exists()


SWEEP = """
vary:
  model.layers: [[0], [9]]
  model.values.steps: [3, 4]
fixed:
  data.edits: 2
  trainer.callbacks: [{class_path: EditReport, init_args: {table: false}}]
"""


@pytest.mark.slow
def test_sweep_runs_every_combination_and_leaves_out_what_cannot_be_run(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    fit, alive = sweep.run, []

    def counted(words, *kind):
        if not kind:  # not the preview that makes a run's parts and runs nothing
            alive.append(sum(type(thing).__name__ == "EditingModule" for thing in gc.get_objects()))
        return fit(words, *kind)

    monkeypatch.setattr(sweep, "run", counted)
    cli.main(["sweep", "sweep.yaml", "--model.second_moment.tokens", "4000", "--trainer.logger.save_dir", "runs"])
    shown = capfd.readouterr()
    assert len(alive) == 4
    assert set(alive[1:]) == {min(alive)}  # no model of an earlier combination is held while the next one loads
    assert "left out: layers=[9] steps=3" in shown.err
    assert "layers=[0] steps=4" in shown.out
    assert (tmp_path / "runs" / "sweep.png").is_file()
    configs = [json.loads(path.read_text())["config"]["model"] for path in sorted(tmp_path.glob("runs/*/metrics.json"))]
    assert [(config["layers"], config["values"]["steps"]) for config in configs] == [([0], 3), ([0], 4)]
    assert not list(tmp_path.glob("runs/*/model"))


@pytest.mark.slow
def test_a_sweep_over_seeds_compares_means(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    vary = "vary: {model.seed: [0, 1], model.values.steps: [2, 4]}\nfixed: {data.edits: 2, collateral.prompts: 0}\n"
    (tmp_path / "seeds.yaml").write_text(vary)
    cli.main(["sweep", "seeds.yaml", "--model.second_moment.tokens=4000", "--trainer.logger.save_dir=./runs"])
    shown = capfd.readouterr().out
    rows = [line for line in shown.splitlines() if line.startswith("steps=")]
    assert ["steps=4" in rows[0], "steps=2" in rows[1], len(rows)] == [True, True, 2]
    assert "seed=" not in shown
    assert (tmp_path / "runs" / "seeds.png").is_file()


@pytest.mark.parametrize("form", [["--config", "configs/solvers/rrome.yaml"], ["--config=configs/solvers/rrome.yaml"]])
def test_shipped_configs_are_found_from_any_folder(form, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        cli.main(["fit", *form, "--print_config"])
    assert not left.value.code
    assert "RROME" in capsys.readouterr().out


@pytest.mark.slow
def test_compare_reads_what_runs_leave(finished, tmp_path, capfd):
    shutil.copytree(finished, tmp_path / "version_0")
    command(tmp_path, "fit", *SMALL, "--data.edits", "2", "--model.values.steps", "2")
    cli.main(["compare", str(tmp_path), "--metric", "efficacy_magnitude", "--output", str(tmp_path / "figure.png")])
    shown = capfd.readouterr().out
    assert "efficacy" in shown
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("vary: 3", "`vary` must give a list of values"),
        ("values: {a: [1]}", "expected the keys vary (needed), fixed and metric"),
        ("vary: {a: [", "sweep.yaml, line 2, column 1: not YAML"),
        ("{vary: {a: [1]}, fixed: [1]}", "`fixed` must give a value"),
    ],
)
def test_a_wrong_sweep_file_is_refused(content, message, tmp_path, capfd):
    (tmp_path / "sweep.yaml").write_text(content)
    with pytest.raises(SystemExit):
        cli.main(["sweep", str(tmp_path / "sweep.yaml")])
    assert message in capfd.readouterr().err


def test_a_callback_that_is_there_already_is_refused_in_words(capsys):
    with pytest.raises(SystemExit) as status:
        cli.main(["fit", "--trainer.callbacks+=EditCheckpoint"])
    assert status.value.code == 2
    assert "more than one stateful callback of type `EditCheckpoint`" in capsys.readouterr().err.replace("\n", " ")
