"""Settings that the parser or Lightning would answer with a traceback, or not at all."""

import time

import pytest
import yaml

from lightning_edit.cli import main as cli
from tests.storage.test_user_files import bomb


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def said(capfd, *args):
    began = time.monotonic()
    with pytest.raises(SystemExit) as left:
        cli.main(["fit", *args])
    assert left.value.code == 2
    assert time.monotonic() - began < 10
    shown = capfd.readouterr().err
    assert "Traceback" not in shown
    assert len(shown) < 7000
    return shown


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--seed_everything=-1"], "`seed_everything` must be from 0 to 4294967295, got -1."),
        (["--seed_everything=4294967296"], "`seed_everything` must be from 0 to 4294967295, got 4294967296."),
        (["--data.edits=null"], "`data.edits` must be a number, got null."),
        (["--model.values=null"], "`model.values` needs a value of type ValueSettings, got null."),
        (["--model.values.steps=null"], "`model.values.steps` must be a number, got null."),
        (["--model.solver.init_args.emmet_lambda=null"], "emmet_lambda` needs a value of type float, got null."),
        (["--trainer.devices=-1", "--trainer.accelerator=cpu"], "These settings cannot be used: `devices` selected"),
        (["--trainer.num_nodes=-1"], "`num_nodes` must be a positive integer, but got -1."),
        (["--model.model=a\0b"], "`model.model` holds a NUL character, which no name can: 'a\\x00b'."),
        (["--model.layers=" + "[" * 100_000 + "]" * 100_000], "layers"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_in_words(args, message, capfd):
    assert message in said(capfd, *args)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"trainer: null", "`trainer` needs its settings, got null."),
        (b"watch: 5", "`watch` needs its settings, got 5."),
        (b"retention: [1]", "`retention` needs its settings, got [1]."),
        (b"data: {edits: null}", "`data.edits` needs a value of type int, got null."),
        (
            b'trainer: {logger: {class_path: CSVLogger, init_args: {save_dir: x, name: "a\\0b"}}}',
            "holds a NUL character",
        ),
        (b"a: caf\xe9", "settings.yaml is not UTF-8 text"),
        (b"model: " + b"[" * 100_000, "settings.yaml: line 1: nested more than 100 levels deep."),
        (b"data: {edits: " + b"9" * 5000 + b"}", "settings.yaml: not readable as YAML (ValueError: Exceeds the limit"),
        (bomb(9).encode(), "settings.yaml: line 6: more than 100,000 values"),
        (b"a: &a [*a]", "settings.yaml: line 1: the alias *a stands inside of what it stands for."),
        (b"a: [", "settings.yaml: line 2, column 1: not YAML"),
        (b"", "settings.yaml is empty."),
    ],
)
def test_a_file_of_settings_is_read_within_bounds(content, message, tmp_path, capfd):
    (tmp_path / "settings.yaml").write_bytes(content)
    assert message in said(capfd, "--config", str(tmp_path / "settings.yaml"))


def test_a_file_for_a_part_of_the_settings_is_as_well(tmp_path, capfd):
    (tmp_path / "values.yaml").write_bytes(bomb(9).encode())
    assert "more than 100,000 values" in said(capfd, f"--model.values={tmp_path / 'values.yaml'}")
    (tmp_path / "values.yaml").write_bytes(b"steps: 3 # \xe9")
    assert "can't decode byte 0xe9" in said(capfd, f"--model.values={tmp_path / 'values.yaml'}")


@pytest.mark.parametrize(
    "name", ["second_moment.tokens", "second_moment.cache_dir", "values.mpes", "evaluation.judge.cache_dir"]
)
def test_a_null_within_settings_within_settings_is_one(name, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["fit", "--print_config", f"--model.{name}=null"])
    assert not end.value.code
    found = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]
    for key in name.split("."):
        found = found[key]
    assert found is None
