"""What is said of several runs side by side."""

from lightning_edit.commands.comparison.runs import read_runs
from lightning_edit.report.comparing import compared
from lightning_edit.report.curves import panels_of
from lightning_edit.report.losses import abilities_of
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
