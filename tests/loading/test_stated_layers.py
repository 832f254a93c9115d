"""Layers that a model cannot have are refused before its weights are looked at, which here are not there."""

import shutil

import pytest

from lightning_edit.cli import main as cli
from lightning_edit.loading.pretrained import check_stated_layers
from lightning_edit.tiny import MODEL_PATH


@pytest.fixture
def folder(tmp_path, monkeypatch):
    shutil.copytree(MODEL_PATH, tmp_path / "m", ignore=shutil.ignore_patterns("*.safetensors"))
    (tmp_path / "edits.csv").write_text("subject,prompt,target_new\nAnna,{} is a,pilot\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "given"),
    [
        (["fit", "--model.model", "m", "--model.layers", "[9]"], "[9]"),
        (["edit", "m", "edits.csv", "--layers", "9", "--device", "cpu"], "[9]"),
        (["tune", "m", "--layers", "3-12", "--device", "cpu"], "[3, 4, 5, 6, 7, 8, 9, 10, 11, 12]"),
    ],
)
def test_commands_refuse_them(words, given, folder, capfd):
    with pytest.raises(SystemExit) as left:
        cli.main(words)
    assert left.value.code == 2
    said = " ".join(capfd.readouterr().err.split())
    assert f"`layers` must be different numbers from 0 to 2 (the model's), got {given}." in said


def test_what_the_configuration_does_not_say_is_left_to_who_loads_the_model(tmp_path):
    check_stated_layers("tiny", [0, 2])
    check_stated_layers(str(tmp_path), [9])
