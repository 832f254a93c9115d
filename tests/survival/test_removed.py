"""``survive`` on a run from which updates were removed: their edits did not fail to survive, they are not there."""

import json
import shutil

import pytest

from lightning_edit.cli import main as cli
from lightning_edit.updates.files.update_list import UpdateList

FAST = ["--text_tokens=2000", "--perplexity_tokens=0", "--variants=edited"]


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def survive(run, output, *args):
    cli.main(["survive", str(run), f"--output={output}", *FAST, *args])
    (edited,) = json.loads(output.read_text())["variants"]
    return edited


@pytest.mark.parametrize("name", ["", "edited.ckpt"])
def test_records_of_removed_updates_are_left_out_and_counted(name, run, tmp_path, capsys):
    whole = survive(run / name, tmp_path / "whole.json")
    cli.main(["updates", "remove", str(run), "1"])
    capsys.readouterr()
    rest = survive(run / name, tmp_path / "rest.json")
    shown = capsys.readouterr()
    said = " ".join(shown.err.split())
    assert "! After the run update 1 was removed: 2 records are left out." in said
    assert ("edited.ckpt still holds update 1" in said) == bool(name)
    assert "What survives of 4 edits" in " ".join(shown.out.split())
    removed = {edit["subject"] for edit in UpdateList(run / "updates").record(1).edits}
    subjects = [{answer["subject"] for answer in found["answers"]} for found in (whole, rest)]
    assert subjects[0] - subjects[1] == removed
    assert (len(whole["answers"]), len(rest["answers"])) == (6, 4)


def test_a_checkpoint_that_holds_them_is_measured_on_all_records(run, tmp_path, capsys):
    cli.main(["updates", "remove", str(run), "1"])
    capsys.readouterr()
    file = run / "checkpoints" / "update-000003.ckpt"
    assert len(survive(file, tmp_path / "survival.json")["answers"]) == 6
    assert f"! {file} still holds update 1" in " ".join(capsys.readouterr().err.split())


def test_a_checkpoint_in_the_middle_is_measured_on_the_edits_it_holds(run, tmp_path, capsys):
    file = run / "checkpoints" / "update-000001.ckpt"
    found = survive(file, tmp_path / "survival.json")
    shown = capsys.readouterr()
    assert "! 4 records are left out: their edits are not in the model, which holds 2 edits." in " ".join(
        shown.err.split()
    )
    held = {edit["subject"] for edit in UpdateList(run / "updates").record(1).edits}
    assert {answer["subject"] for answer in found["answers"]} == held


def test_a_run_without_any_update_left_is_refused(run, tmp_path, capsys):
    cli.main(["updates", "remove", str(run), "1", "2", "3"])
    capsys.readouterr()
    with pytest.raises(SystemExit):
        survive(run, tmp_path / "survival.json")
    assert "and with them all of its edits" in " ".join(capsys.readouterr().err.split())


def test_earlier_results_are_named_when_an_update_is_removed(run, capsys):
    (run / "survival.json").write_text("{}")
    cli.main(["updates", "remove", str(run), "1"])
    assert f"{run / 'survival.json'} was measured before this." in " ".join(capsys.readouterr().out.split())
