"""Which runs a comparison finds, what it says of them, and what a wrong folder or file gets."""

import json
import time

import pytest

from lightning_edit import EditError
from lightning_edit.commands.comparison import compare
from lightning_edit.commands.comparison.lines import lines_of
from lightning_edit.commands.comparison.runs import read_runs
from lightning_edit.commands.comparison.table import columns_of
from tests.run_folders import BEFORE, write


def run_compare(runs, tmp_path, **settings):
    compare([str(run) for run in runs], output=str(tmp_path / "out" / "comparison.png"), **settings)
    return tmp_path / "out"


def change(folder, **content):
    file = folder / "metrics.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **content}))


# -- which runs are found ----------------------------------------------------------------------------------------------


def test_a_parent_folder_stands_for_its_finished_runs_in_natural_order(tmp_path):
    for name in ("version_10", "version_2", "deep/version_1"):
        write(tmp_path / "runs" / name)
    unfinished = write(tmp_path / "runs" / "version_3") / "metrics.json"
    unfinished.write_text(json.dumps({"before": BEFORE, "after": None, "edits": 0}))
    runs, notes = read_runs([tmp_path / "runs", tmp_path / "runs" / "version_2"])
    assert [run.folder.name for run in runs] == ["version_1", "version_2", "version_10"]
    assert len(notes) == 1
    assert "version_3 was not finished" in notes[0]


def test_an_unfinished_last_line_of_a_curve_is_passed_over_and_said(tmp_path, capsys):
    folder = write(tmp_path / "a", curve=[(16, {"S": 0.7})])
    with (folder / "curves.jsonl").open("a") as file:
        file.write('{"edits": 32, "upda')
    run_compare([folder], tmp_path)
    assert "curves.jsonl, line 2 is not complete" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("first", "other", "message"),
    [
        (
            {"wild": {"input": "bare", "stop": ["."], "judge": None}},
            {"wild": {"input": "chat", "stop": ["."], "judge": {"model": "it"}}},
            "not asked or marked alike in all runs (input, judge, judge.model)",
        ),
        ({}, {"path": "zsre.json"}, "not measured on the same data (data.path counterfact.json, zsre.json)"),
        ({}, {}, "EMMET: 2 runs with 64 edits by 64; the figure shows the last one"),
        ({}, {"curve": [(8, {"extra": 1.0})]}, "extra was not measured by EMMET."),
    ],
)
def test_what_makes_a_comparison_doubtful_is_said(tmp_path, capsys, first, other, message):
    folders = [write(tmp_path / "a", **first), write(tmp_path / "b", **other)]
    run_compare(folders, tmp_path, metric=["extra"] if "curve" in other else ["S"])
    assert message in " ".join(capsys.readouterr().out.split())


def test_edits_left_out_are_said_and_the_same_data_is_not_warned_of(tmp_path, capsys):
    folders = [write(tmp_path / "a", 8), write(tmp_path / "b", 16)]
    content = json.loads((folders[0] / "metrics.json").read_text())
    (folders[0] / "metrics.json").write_text(json.dumps({**content, "left_out": ["x", "y"]}))
    run_compare(folders, tmp_path)
    shown = capsys.readouterr().out
    assert "a: 2 edits were left out" in shown
    assert "same data" not in shown


def test_runs_of_own_edits_are_compared_by_their_accuracy(tmp_path, capsys):
    for name, accuracy in (("a", 0.75), ("b", 0.25)):
        after = {"efficacy_accuracy": accuracy, "efficacy_token_accuracy": accuracy}
        change(write(tmp_path / name), before={"efficacy_accuracy": 0.0}, after=after)
    run_compare([tmp_path / "a", tmp_path / "b"], tmp_path)
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("efficacy", "accuracy %", "75.0", "25.0"))


def test_accuracies_are_shown_beside_scores_only_where_a_run_has_no_score(tmp_path):
    change(write(tmp_path / "scored"), after={"efficacy_score": 1.0, "efficacy_accuracy": 0.5, "S": 0.5})
    change(write(tmp_path / "own"), after={"efficacy_accuracy": 0.75})
    scored, own = read_runs([tmp_path / "scored", tmp_path / "own"])[0]
    assert columns_of([scored], ["S"]) == ["efficacy_score", "S"]
    assert columns_of([scored, own], ["S"]) == ["efficacy_score", "efficacy_accuracy", "S"]


def test_what_test_measured_is_no_run(tmp_path):
    for name in ("run", "again"):
        change(write(tmp_path / name), command="fit" if name == "run" else "test")
    runs, notes = read_runs([tmp_path])
    assert [run.folder.name for run in runs] == ["run"]
    assert notes == [f"{tmp_path / 'again'} holds what `test` measured of another run and is left out."]
    assert len(read_runs([tmp_path / "again"])[0]) == 1


def test_runs_of_one_name_are_shown_with_as_much_of_their_paths_as_tells_them_apart(tmp_path, capsys):
    run_compare([write(tmp_path / name / "version_0", ridge=i) for i, name in enumerate("ab")], tmp_path)
    shown = capsys.readouterr().out
    assert "a/version_0" in shown
    assert "b/version_0" in shown


def test_a_label_is_as_long_as_a_figure_can_show(tmp_path):
    began = time.monotonic()
    folders = [write(tmp_path / "a"), write(tmp_path / "b")]
    for number, folder in enumerate(folders):
        change(
            folder, config={"model": {"solver": {"class_path": "\x1b[1m" + "x" * 500_000 + str(number)}}, "data": {}}
        )
    lines = lines_of(read_runs(folders)[0], "edits")
    assert [line.label[:7] + line.label[-4:] for line in lines] == ["\\x1b[1mxxx0", "\\x1b[1mxxx1"]
    assert max(len(line.label) for line in lines) < 210
    assert run_compare(folders, tmp_path, labels=["x" * 100_000, "y"]).is_dir()
    assert time.monotonic() - began < 10


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "text", "messages"),
    [
        ("metrics.json", '{\n"before": {,', ["metrics.json, line 2, column 12: not JSON"]),
        ("metrics.json", "[]", ["expected an object with `before`, `after` and `config`"]),
        ("metrics.json", '{"before": {}, "after": null}', ["holds no figures `after` editing", "leave it out"]),
        (
            "metrics.json",
            '{"after": {"S": 1}, "edits": 0}',
            ["`edits` must be a whole number from 1 to 1,000,000,000,000, got 0"],
        ),
        (
            "metrics.json",
            f'{{"after": {{"S": 1}}, "edits": {10**400}}}',
            ["`edits` must be a whole number", "got 1000"],
        ),
        ("metrics.json", '{"after": {"S": 1}, "edits": 1, "config": {"data": 5}}', ["`before`, `after` and `config`"]),
        ("metrics.json", '{"after": {"S": "high"}, "edits": 1}', ["`after`: expected a number as S, got 'high'"]),
        ("curves.jsonl", '{"edits": 1\n{"edits": 2, "figures": {}}\n', ["curves.jsonl, line 1, column 12: not JSON"]),
        ("curves.jsonl", '{"edits": 1\n', ["curves.jsonl, line 1, column 12: not JSON"]),
        ("curves.jsonl", "[1]\n", ["line 1: expected an object with `edits` and `figures`"]),
        ("curves.jsonl", '{"edits": 1}\n', ["line 1: expected figures as an object"]),
        ("curves.jsonl", '\n{"edits": -1, "figures": {}}\n', ["line 2: `edits` must be a whole number from 0 to"]),
    ],
)
def test_a_broken_file_is_named(tmp_path, file, text, messages):
    folder = write(tmp_path / "a")
    (folder / file).write_text(text)
    with pytest.raises(EditError) as raised:
        run_compare([folder], tmp_path)
    for message in messages:
        assert message in str(raised.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"metric": "efficacy_scor"},
            r"efficacy_scor was not measured in any run. Did you mean efficacy_score\? There",
        ),
        ({"metric": "middle", "x": "batch_size"}, "middle was not measured at the end of any run"),
        ({"metric": []}, "`metric`: expected at least one name"),
        ({"metric": ","}, "`metric`: expected at least one name"),
        ({"labels": ["a", "b"]}, r"`labels`: expected one for each of 1 run \(.*a\), in this order, got 2"),
        ({"x": "updates"}, "`x` must be edits or batch_size, got updates"),
        ({"output": "figure.jpg"}, "`output` must be a file whose name ends in .png, .pdf, .svg, got figure.jpg"),
        ({"table": "table.html"}, "`table` must be a file whose name ends in .tex, .csv, .md, got table.html"),
        ({"significance": True}, "`significance` compares two methods or more, and there is one: EMMET"),
    ],
)
def test_a_wrong_setting_is_refused(tmp_path, settings, message):
    folder = write(tmp_path / "a", curve=[(8, {"middle": 1.0})])
    with pytest.raises(EditError, match=message):
        compare([str(folder)], **{"output": str(tmp_path / "out.png"), **settings})
    assert not (tmp_path / "out.png").exists()


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for name, message in (("empty", "holds no metrics.json"), ("none", "there is no folder"), ("file", "is a file")):
        with pytest.raises(EditError, match=message):
            run_compare([tmp_path / name], tmp_path)
    with pytest.raises(EditError, match="at least one folder"):
        compare([])
    write(tmp_path / "runs" / "a")
    (tmp_path / "runs" / "a" / "metrics.json").write_text('{"after": null}')
    with pytest.raises(EditError, match=r"no run below .* is finished"):
        run_compare([tmp_path / "runs"], tmp_path)
