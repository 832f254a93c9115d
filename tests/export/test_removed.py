"""What was removed from a run, where a checkpoint that still holds it is exported."""

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


def card_in(folder):
    return (folder / "README.md").read_text(encoding="utf-8")
