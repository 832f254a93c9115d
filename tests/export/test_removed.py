"""What was removed from a run, where a checkpoint that still holds it is exported."""

import json
import shutil

import pytest

from lightning_edit.cli import main as cli

pytest.importorskip("peft")


def test_the_checkpoint_of_a_run_is_exported_without_what_was_removed(finished, tmp_path, capsys):
    run = shutil.copytree(finished, tmp_path / "version_0")
    cli.main(["updates", "remove", str(run), "1"])
    cli.main(["export", str(run), "--out", str(tmp_path / "expected")])
    capsys.readouterr()
    cli.main(["export", str(run / "edited.ckpt"), "--out", str(tmp_path / "own")])
    said = " ".join(capsys.readouterr().err.split())
    assert f"! {run / 'edited.ckpt'} still holds update 1, which was removed from its run. The run is taken as" in said
    for name in ("adapter_config.json", "adapter_model.safetensors", "README.md"):
        assert (tmp_path / "own" / name).read_bytes() == (tmp_path / "expected" / name).read_bytes()
    assert "Removed after the figures below were measured: update 1 of the run" in card_in(tmp_path / "own")


def test_a_checkpoint_in_the_middle_is_exported_as_it_is_and_the_card_says_so(finished, tmp_path, capsys):
    run = shutil.copytree(finished, tmp_path / "version_0")
    cli.main(["updates", "remove", str(run), "1"])
    capsys.readouterr()
    file = run / "checkpoints" / "update-000003.ckpt"
    cli.main(["export", str(file), "--out", str(tmp_path / "whole")])
    said = " ".join(capsys.readouterr().err.split())
    assert f"! {file} still holds update 1, which was removed from its run. It is taken as it is" in said
    assert "- Holds what was removed from the run since: update 1" in card_in(tmp_path / "whole")
    assert "6 edited facts" in card_in(tmp_path / "whole")


def test_a_checkpoint_in_the_middle_has_no_figures_of_the_whole_run(finished, tmp_path, capsys):
    cli.main(["export", str(finished / "checkpoints" / "update-000001.ckpt"), "--out", str(tmp_path / "early")])
    cli.main(["export", str(finished), "--out", str(tmp_path / "whole")])
    early, whole = card_in(tmp_path / "early"), card_in(tmp_path / "whole")
    assert "- Holds the first 2 of 6 edits of its run, whose figures are of all of them and not shown" in early
    assert "2 edited facts" in early
    assert "| the model ... | before | after |" in whole
    assert "## Figures\n\nThese edits were not measured." in early


def test_a_checkpoint_of_a_run_that_was_never_measured_says_nothing_of_more(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "version_0")
    content = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps({**content, "after": None, "edits": 0}))
    cli.main(["export", str(run / "checkpoints" / "update-000001.ckpt"), "--out", str(tmp_path / "card")])
    assert "Holds the first" not in card_in(tmp_path / "card")


def test_a_run_that_ended_early_says_so_on_its_card(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "version_0")
    content = json.loads((run / "metrics.json").read_text())
    assert content["not_made"] == 0
    (run / "metrics.json").write_text(json.dumps({**content, "not_made": 5}))
    cli.main(["export", str(run), "--out", str(tmp_path / "card")])
    assert "- Not made, as the run ended early, and counted as failed below: 5 edits" in card_in(tmp_path / "card")


def card_in(folder):
    return (folder / "README.md").read_text(encoding="utf-8")
