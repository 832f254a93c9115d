"""Names that users give runs: of folders, of lines and of bars; and runs that differ in their seeds alone."""

import json
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

import pytest
import yaml

from lightning_edit.cli import main as cli
from lightning_edit.commands.comparison.lines import lines_of, points_of
from lightning_edit.commands.comparison.runs import read_runs
from lightning_edit.commands.comparison.seeds import joined_seeds, stem
from lightning_edit.commands.comparison.table import notes_of
from lightning_edit.commands.run_name import check_name
from lightning_edit.errors import EditError
from tests.run_folders import write

SMALL = ("--data.edits=2", "--model.values.steps=2", "--model.second_moment.source=identity")
WRONG = ["a/b", "..", ".hidden", "", " a", "a ", "a.", "version_3", "a\\b", "a:b", "a\nb", "-x", "_x", "a" * 81, "CON*"]


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_name_of_a_folder_is_refused(name):
    with pytest.raises(EditError, match=r"`name` is the name of the run's folder: up to 80"):
        check_name(name)


@pytest.mark.parametrize("name", ["a", "encore", "ENCORE, lr=0.1 (2)", "\u00c9dition-3", "1", "x_y", "a" * 80, "C++"])
def test_names_of_folders_are_accepted(name):
    check_name(name)


def test_a_run_lies_in_the_folder_of_its_name_and_says_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cli.main(["fit", "--name", "encore 1", *SMALL])
    folder = tmp_path / "runs" / "encore 1"
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["encore 1"]
    assert yaml.safe_load((folder / "config.yaml").read_text())["name"] == "encore 1"
    assert json.loads((folder / "metrics.json").read_text())["name"] == "encore 1"
    [run], _ = read_runs([folder])
    assert run.name == "encore 1"
    assert [line.label for line in lines_of([run], "edits")] == ["encore 1"]
    before = sorted(path.name for path in folder.iterdir())
    for words in (["--name", "encore 1", *SMALL], ["--config", str(folder / "config.yaml")]):
        with pytest.raises(SystemExit):
            cli.main(["fit", *words])
        assert "give this one another `--name`" in " ".join(capsys.readouterr().err.split())
    assert sorted(path.name for path in folder.iterdir()) == before
    with pytest.raises(SystemExit):
        cli.main(["fit", "--name", "x", "--trainer.logger.version", "y", *SMALL])
    assert "Leave out one of them" in capsys.readouterr().err
    assert not (tmp_path / "runs" / "x").exists()


def test_a_named_run_without_a_logger_and_one_that_goes_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    method = ("--config", "configs/solvers/rlsedit.yaml")
    cli.main(["fit", "--name", "plain", "--trainer.logger", "false", *method, *SMALL])
    folder = tmp_path / "lightning_edit_run" / "plain"
    assert json.loads((folder / "metrics.json").read_text())["name"] == "plain"
    # A run that was interrupted has none yet.
    (folder / "metrics.json").unlink()
    cli.main(["fit", "--ckpt_path", str(min((folder / "checkpoints").glob("*.ckpt")))])
    assert [path.name for path in folder.parent.iterdir()] == ["plain"]
    assert json.loads((folder / "metrics.json").read_text())["name"] == "plain"
    [run], _ = read_runs([folder])
    assert run.settings["method"] == "rlsedit"


def labels(runs, x="edits"):
    return [line.label for line in lines_of(joined_seeds(read_runs(runs)[0]), x)]


def test_a_test_has_the_folder_of_its_name_and_a_run_that_goes_on_takes_no_other(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cli.main(["fit", "--name", "a", *SMALL])
    cli.main(["test", "--ckpt_path", "runs/a", "--name", "again", "--collateral.prompts=0"])
    assert json.loads((tmp_path / "runs/again/metrics.json").read_text())["command"] == "test"
    checkpoint = sorted((tmp_path / "runs/a/checkpoints").glob("update-*.ckpt"))
    with pytest.raises(SystemExit):
        cli.main(["fit", "--ckpt_path", str(checkpoint[0]) if checkpoint else "runs/a/edited.ckpt", "--name", "b"])
    assert "--name b`: the run goes on in its own folder" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "runs" / "b").exists()


def test_names_are_labels_and_no_settings(tmp_path):
    folders = [write(tmp_path / "a", name="ours", ridge=1), write(tmp_path / "b", ridge=2)]
    assert labels(folders) == ["ours", "EMMET, ridge 2"]
    runs, _ = read_runs(folders)
    assert not [name for run in runs for name in run.settings if name.startswith("name")]
    # A file may say anything.
    content = json.loads((folders[0] / "metrics.json").read_text())
    (folders[0] / "metrics.json").write_text(json.dumps(content | {"name": "../x"}))
    assert labels(folders) == ["EMMET, ridge 1", "EMMET, ridge 2"]


def test_runs_of_one_method_with_other_names_stay_apart_and_numbers_do_not_count(tmp_path):
    apart = [write(tmp_path / "x" / name, n, name=name) for name, n in (("first", 32), ("second", 64))]
    assert labels(apart) == ["first", "second"]
    sizes = [write(tmp_path / "y" / f"{n}", n, name=f"emmet-{n}") for n in (1, 16, 64)]
    assert labels(sizes, "batch_size") == ["emmet"]
    same = [write(tmp_path / "z" / f"{ridge}", name="ours", ridge=ridge) for ridge in (1, 2)]
    assert labels(same) == ["ours (EMMET, ridge 1)", "ours (EMMET, ridge 2)"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("encore-1", "encore"),
        ("encore_seed3", "encore"),
        ("encore seed 3", "encore"),
        ("run2", "run2"),
        ("7", "7"),
        ("encore", "encore"),
        (None, None),
    ],
)
def test_a_number_at_the_end_of_a_name_is_that_of_a_repetition(name, expected):
    assert stem(name) == expected


def test_runs_that_differ_in_their_seeds_are_their_mean_with_their_standard_deviation(tmp_path):
    values = [0.5, 0.6, 0.9]
    curve = [(16, {"S": 0.7, "S_stderr": 0.2})]
    folders = [
        write(tmp_path / f"{seed}", 64, value, [(16, {"S": value / 2, "S_stderr": 0.2})], once=16, seed=seed)
        for seed, value in enumerate(values)
    ]
    folders.append(write(tmp_path / "other", 64, 0.4, curve, once=16, solver="MEMIT"))
    runs = joined_seeds(read_runs(folders)[0])
    assert [run.seeds for run in runs] == [3, 1]
    assert runs[0].folders == tuple(folders[:3])
    lines = lines_of(runs, "edits")
    assert [line.label for line in lines] == ["EMMET", "MEMIT"]
    _, middle, end = points_of(lines[0], "S", "edits")
    assert (end.value, end.stderr) == (pytest.approx(fmean(values)), pytest.approx(stdev(values)))
    assert (middle.value, middle.stderr) == (pytest.approx(fmean(values) / 2), pytest.approx(stdev(values) / 2))
    assert points_of(lines[1], "S", "edits")[1].stderr == 0.2
    assert "EMMET: means over 3 seeds" in " ".join(notes_of(runs, lines, ["S"], "edits"))


def test_runs_whose_free_answers_were_asked_otherwise_are_not_joined(tmp_path):
    folders = [write(tmp_path / f"{seed}", 64, 0.5, seed=seed) for seed in range(4)]
    runs = [
        replace(run, wild={"wild.tokens": str(16 if at < 2 else 64)}) for at, run in enumerate(read_runs(folders)[0])
    ]
    joined = joined_seeds(runs)
    assert [(run.seeds, run.wild) for run in joined] == [(2, {"wild.tokens": "16"}), (2, {"wild.tokens": "64"})]


@pytest.mark.parametrize("x", ["batch_size", "edits"])
def test_runs_that_are_not_joined_keep_the_numbers_of_their_names(x, tmp_path):
    """They have the same settings and seed, so nothing but their names tells them apart."""
    folders = [write(tmp_path / name, 64, value, name=name) for name, value in (("q4", 0.5), ("q5", 0.6))]
    assert labels(folders, x) == ["q4", "q5"]
    lines = lines_of(joined_seeds(read_runs(folders)[0]), x)
    assert [points_of(line, "S", x)[-1].value for line in lines] == [0.5, 0.6]
    # Further lengths of the same method do not change that; runs of other seeds are joined.
    assert labels([*folders, write(tmp_path / "q6", 32, name="q6")], "edits") == ["q4", "q5", "q6"]
    assert labels([*folders, write(tmp_path / "q7", 64, seed=1, name="q7")], x) == ["q"]


def test_a_seed_that_was_run_twice_counts_once(tmp_path):
    folders = [write(tmp_path / f"{number}", 64, 0.5 + number / 10, seed=number % 2) for number in range(3)]
    [run] = joined_seeds(read_runs(folders)[0])
    assert run.seeds == 2
    assert run.after["S"] == pytest.approx((0.7 + 0.6) / 2)
    assert [Path(folder).name for folder in run.folders] == ["2", "1"]
