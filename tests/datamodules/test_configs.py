"""Every shipped data configuration, through the command line's own parser."""

import re
from pathlib import Path

import pytest
import yaml
from jsonargparse import ArgumentParser

from lightning_edit.datamodules import EditDataModule, TinyWorld
from tests.data_files import FORMATS, write_world

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "data").glob("*.yaml"))


WITHOUT_SUBJECTS = {"unke", "editeverything", "ultraeditbench", "fever"}
WITHOUT_PARAPHRASES = {"mquake", "rippleedits"}
WITH_TESTS = {"knowedit", "rippleedits", "mquake", "wikibigedit", "halluedit"}
IN_OTHER_WORDS = {"rippleedits": lambda prompt: "The mother tongue of {} is", "fever": lambda prompt: claim(prompt)}


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
    subjects = config.stem not in WITHOUT_SUBJECTS
    assert [r.subject for r in data.requests] == [r.subject if subjects else "" for r in expected]
    prompts = [r.prompt if subjects else r.rewrite_prompt for r in expected]
    assert [r.prompt for r in data.requests] == [IN_OTHER_WORDS.get(config.stem, str)(prompt) for prompt in prompts]
    if config.stem != "fever":
        # Of a long answer the first sentence is the target.
        assert [r.target_new.split(".")[0] for r in data.requests] == [r.target_new for r in expected]
    if config.stem not in ("fever", *WITHOUT_PARAPHRASES):
        assert [r.paraphrase_prompts[0] for r in data.requests] == [r.paraphrase_prompts[0] for r in expected]
    assert all(bool(r.ripples) == (config.stem in WITH_TESTS) for r in data.requests)


def claim(prompt):
    """How FEVER's default asks about the claim of a record."""
    answers = {request.rewrite_prompt: request.target_new for request in TinyWorld(edits=5).requests}
    return f"{prompt} {answers[prompt]}. True or false? Answer:"


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_setting_is_shown(config):
    shown = yaml.safe_load(config.read_text())["data"]
    data = instantiate(f"--config={config}", "--data.preservation=null")
    assert set(shown["init_args"]) == set(data.hparams)
    lines = config.read_text().splitlines()
    assert [line for line in lines if re.match(r" {4}\w", line) and "#" not in line] == []
