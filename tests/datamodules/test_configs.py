"""Every shipped data configuration, through the command line's own parser."""

import re
from pathlib import Path

import pytest
import yaml
from jsonargparse import ArgumentParser

from lightning_edit.datamodules import EditDataModule, TinyWorld
from tests.data_files import FORMATS, write_world

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "data").glob("*.yaml"))


def instantiate(*args):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_subclass_arguments(EditDataModule, "data")
    return parser.instantiate(parser.parse_args(list(args))).data


def test_every_format_has_a_configuration():
    assert {path.stem for path in CONFIGS} == set(FORMATS)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_reads_its_format(config, tmp_path):
    path = write_world(config.stem, tmp_path, edits=5)
    data = instantiate(
        f"--config={config}", f"--data.path={path}", "--data.limit=3", "--data.preservation=TinyWorldText"
    )
    expected = TinyWorld(edits=5).requests[:3]
    subjects = config.stem != "unke"
    assert [(r.subject, r.prompt) for r in data.requests] == [
        (r.subject, r.prompt) if subjects else ("", r.rewrite_prompt) for r in expected
    ]
    answers = [r.target_new if subjects else r.target_new.split(".")[0] for r in data.requests]
    assert answers == [r.target_new for r in expected]
    assert [r.paraphrase_prompts[0] for r in data.requests] == [r.paraphrase_prompts[0] for r in expected]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_setting_is_shown(config):
    shown = yaml.safe_load(config.read_text())["data"]
    data = instantiate(f"--config={config}", "--data.preservation=null")
    assert set(shown["init_args"]) == set(data.hparams)
    lines = config.read_text().splitlines()
    assert [line for line in lines if re.match(r" {4}\w", line) and "#" not in line] == []
