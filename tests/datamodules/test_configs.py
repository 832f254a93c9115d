"""Every shipped data configuration, through the command line's own parser."""

import csv
import json
import re
from pathlib import Path

import pytest
import yaml
from jsonargparse import ArgumentParser

from lightning_edit.datamodules import EditDataModule, TinyWorld
from lightning_edit.datamodules.selection import LeftOut
from tests.data_files import FORMATS, ripple_test, write_world

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


def changed(value, wrong):
    """A value of a record with each part of it, at any depth, replaced by something else."""
    yield wrong
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for place, part in parts:
        for other in changed(part, wrong):
            copy = value.copy()
            copy[place] = other
            yield copy


def records_of(config, folder):
    """A record of a format with all that it may hold, and the settings with which all of it is read."""
    path = write_world(config, folder, edits=1)
    with path.open(encoding="utf-8", newline="") as file:
        record = json.load(file)[0] if path.suffix == ".json" else next(csv.DictReader(file))
    if config == "akew":
        case = json.loads(write_world("mquake", folder, edits=1).read_text())[0]
        whole = {"loc": "Who?", "loc_ans": "Bo"} | case | record
        return [(whole, {"form": form}) for form in ("structured", "unstructured")]
    if config == "unke":
        record |= {"sub_question": ["Who?"], "sub_answer": ["Bo"]}
    if config == "rippleedits":
        record["Subject_Aliasing"] = [ripple_test("Who?", ["Bo"], [("Where?", ["Rome"])])]
    if config == "own_edits":
        record |= {"locality": [["Who?", "Bo"]], "ripples": {"reasoning": [{"prompt": "Who?", "answers": ["Bo"]}]}}
    return [(record, {})]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_a_record_of_any_other_form_is_refused_or_read_but_no_failure(config, tmp_path):
    kind = type(instantiate(f"--config={config}"))
    for record, settings in records_of(config.stem, tmp_path):
        sound = tmp_path / "sound.json"
        sound.write_text(json.dumps([record]), encoding="utf-8")
        assert kind(str(sound), **settings).requests
        others = [other for wrong in (5, True, {}, []) for other in changed(record, wrong)]
        path = tmp_path / "changed.json"
        path.write_text(json.dumps(others), encoding="utf-8")
        entries = list(kind(str(path), **settings, bad_records="leave_out").load_requests())
        assert len(entries) >= len(others) and any(isinstance(entry, LeftOut) for entry in entries)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_setting_is_shown(config):
    shown = yaml.safe_load(config.read_text())["data"]
    data = instantiate(f"--config={config}", "--data.preservation=null")
    assert set(shown["init_args"]) == set(data.hparams)
    lines = config.read_text().splitlines()
    assert [line for line in lines if re.match(r" {4}\w", line) and "#" not in line] == []
