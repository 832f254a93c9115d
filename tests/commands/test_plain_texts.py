"""Texts on the command line that YAML would read as something else."""

import csv
import json
from pathlib import Path

import pytest
import yaml

from lightning_edit.cli import main as cli
from lightning_edit.commands.plain_texts import PlainText, plain_text

TOLD = ("fit", "--model", "InContext", "--model.model", "tiny", "--data", "OwnEdits", "--data.path", "edits.csv")
SEARCHED = ("fit", "--model.model", "tiny", "--model.layers", "[0]")


def settings(words, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([*words, "--print_config"])
    shown = capsys.readouterr()
    assert not ended.value.code, shown.err
    return yaml.safe_load(shown.out)


@pytest.mark.parametrize("preface", ["Fact: {}", "# {}", "- {}", "[{}]", "{} ", "{}", "2: {}", "{}: 'so it is'"])
def test_a_text_is_taken_as_it_is(preface, capsys):
    for words in (["--model.preface", preface], [f"--model.preface={preface}"]):
        assert settings([*TOLD, *words], capsys)["model"]["init_args"]["preface"] == preface


@pytest.mark.parametrize("text", ["#", "~", "no", "2025", "[]"])
def test_settings_that_may_be_missing_are_texts_all_the_same(text, capsys):
    words = ["--data", "OwnEdits", "--data.path", "#edits.csv", "--data.separator", text]
    found = settings([*SEARCHED, *words], capsys)["data"]["init_args"]
    assert (found["path"], found["separator"]) == ("#edits.csv", text)
    words[-1] = "null"
    assert settings([*SEARCHED, *words], capsys)["data"]["init_args"]["separator"] is None


def test_texts_in_sections_of_settings(capsys):
    words = ["--model.values.kl_prompt", "{}: what", "--model.chat_settings.system", "Rule 1: be short"]
    found = settings([*SEARCHED, *words, "--downstream.data_dir", "# data", "--downstream.tasks", "[sst]"], capsys)
    assert found["downstream"]["data_dir"] == "# data"
    assert found["model"]["init_args"]["values"]["kl_prompt"] == "{}: what"
    assert found["model"]["init_args"]["chat_settings"]["system"] == "Rule 1: be short"


def test_what_may_be_something_else_stays_that():
    assert plain_text("model.layers", "[0]") == "[0]" and not isinstance(plain_text("model.layers", "[0]"), PlainText)
    assert not isinstance(plain_text("data.path", "[a.csv, b.csv]"), PlainText)
    assert not isinstance(plain_text("model.values", "{steps: 3}"), PlainText)
    assert not isinstance(plain_text("model.preface", "New: {"), PlainText)


def test_a_run_writes_such_a_text_and_reads_it_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Path("edits.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([["subject", "prompt", "target_new"], ["Anna", "{} was born in", "Rome"]])
    cli.main([*TOLD, "--model.preface", "Fact: {}\n", "--data.separator", "#", "--collateral.prompts", "0"])
    metrics = json.loads((tmp_path / "runs" / "version_0" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["config"]["model"]["preface"] == "Fact: {}\n"
    config = yaml.safe_load((tmp_path / "runs" / "version_0" / "config.yaml").read_text(encoding="utf-8"))
    assert config["data"]["init_args"]["separator"] == "#"
