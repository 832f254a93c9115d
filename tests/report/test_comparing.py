"""What is said of several runs side by side, and of the course of one."""

import json

from lightning_edit.commands.comparison.runs import read_runs
from lightning_edit.report.charts import Line, Panel
from lightning_edit.report.comparing import compared
from lightning_edit.report.curves import panels_of
from lightning_edit.report.losses import abilities_of
from lightning_edit.report.settings import warnings_of
from tests.run_folders import write


def test_a_note_of_different_data_names_no_folder_of_the_machine(tmp_path):
    for name in ("one", "two"):
        write(tmp_path / name, path=f"/home/someone/my data/{name}.json")
    runs, _ = read_runs([tmp_path])
    (note,) = [note for note in compared(runs).notes if "same data" in note]
    assert "one.json" in note
    assert "two.json" in note
    assert "someone" not in note


def test_accuracies_of_the_harness_are_in_percent(tmp_path):
    names = ("harness/lambada_openai/acc", "harness/gsm8k/exact_match/strict-match")
    curve = [(at, dict.fromkeys(names, share)) for at, share in ((0, 0.5), (32, 0.6), (64, 0.75))]
    (run,), _ = read_runs([write(tmp_path / "run", curve=curve)])
    (panel,) = [one for one in panels_of(run, []) if one.title == "Tasks"]
    assert [line.name for line in panel.lines] == ["lambada_openai, acc", "gsm8k, exact match strict-match"]
    assert [value for _, value, _ in panel.lines[0].points] == [50.0, 60.0, 75.0]
    assert (panel.unit, panel.top) == ("%", 100.0)
    assert [(one.title, one.after) for one in abilities_of(run, [], {})] == [
        ("lambada_openai: acc", "75.0 %"),
        ("gsm8k: exact match strict-match", "75.0 %"),
    ]


def test_updates_that_were_taken_out_are_named_in_a_sentence(tmp_path):
    folder = write(tmp_path / "run")
    for removed, words in (([2], "update 2 was taken out"), ([1, 2], "updates 1, 2 were taken out")):
        for number in removed:
            (folder / "updates" / f"update-{number}").mkdir(parents=True, exist_ok=True)
        (folder / "updates" / "removed.json").write_text(json.dumps({"removed": removed}))
        (run,), notes = read_runs([folder])
        assert notes == [f"{folder}: {words} since; these figures are from before."]
        assert f"{words} of the model again." in warnings_of(run, {}, removed)[-1]


def test_a_sentence_has_one_full_stop(tmp_path):
    (run,), _ = read_runs([write(tmp_path / "run")])
    for reason in ("set `previous_keys: true`.", "set `previous_keys: true`"):
        (warning,) = warnings_of(run, {"stopped": reason}, [])
        assert warning == "The run ended before all facts were written: set `previous_keys: true`."


def test_one_edit_is_one_in_the_words_of_a_picture():
    line = Line("facts", ((1, 50.0, None), (2, 60.0, None), (3000, 70.0, None)))
    words = Panel("Answers", "", "%", (line,), 100.0).words
    assert words == "Answers, over the number of edits. facts: 50 % after 1 edit, 70 % after 3,000."
