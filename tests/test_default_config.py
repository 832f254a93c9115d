"""``configs/default.yaml`` says what the settings themselves say."""

import yaml

from lightning_edit.cli.default_config import CALLBACKS, EXAMPLE, FILE, default_config, defaults, explanations
from lightning_edit.datamodules import TinyWorld
from lightning_edit.loop.same_run import plain
from lightning_edit.run.module import EditingModule


def test_the_file_is_current():
    assert FILE.read_text(encoding="utf-8") == default_config(), "run `python -m lightning_edit.cli.default_config`"


def test_python_and_the_command_line_have_the_same_defaults():
    content = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    found = content["model"]["init_args"]
    for name, default in defaults(EditingModule).items():
        if name not in EXAMPLE:
            assert found[name] == plain(default), name
    assert found["solver"]["init_args"] == plain(EXAMPLE["solver"])["init_args"]
    assert content["data"]["init_args"] == defaults(TinyWorld)
    for section, (owner, _) in CALLBACKS.items():
        assert content[section] == defaults(owner)


def test_each_setting_is_explained():
    for owner in (EditingModule, TinyWorld, *(owner for owner, _ in CALLBACKS.values())):
        assert all(explanations(owner).get(name) for name in defaults(owner)), owner
