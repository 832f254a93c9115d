"""What is said of several runs side by side."""

from lightning_edit.commands.comparison.runs import read_runs
from lightning_edit.report.comparing import compared
from tests.run_folders import write


def test_a_note_of_different_data_names_no_folder_of_the_machine(tmp_path):
    for name in ("one", "two"):
        write(tmp_path / name, path=f"/home/someone/my data/{name}.json")
    runs, _ = read_runs([tmp_path])
    (note,) = [note for note in compared(runs).notes if "same data" in note]
    assert "one.json" in note
    assert "two.json" in note
    assert "someone" not in note
