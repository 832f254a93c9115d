"""Code that comes with a model is run only where the user says so, whichever way the model is loaded."""

import json

import pytest

from lightning_edit import EditError
from lightning_edit.cli.main import main
from lightning_edit.loading.pretrained import depth_of, load_model, load_tokenizer
from lightning_edit.tiny import MODEL_PATH
from lightning_edit.updates.undo import change_updates

MODULE = """
from pathlib import Path
Path("{mark}").touch()
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

class OwnConfig(LlamaConfig):
    model_type = "own"

class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig

class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""


@pytest.fixture
def folder(tmp_path):
    """A model that only its own code can load, and that leaves a mark wherever that code is run."""
    from tests.architectures import build

    folder = tmp_path / "model"
    build("Llama").save_pretrained(folder)
    for file in MODEL_PATH.iterdir():
        if "token" in file.name:
            (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    classes = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "own", "auto_map": classes}))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": [None, "own.OwnTokenizer"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "own.py").write_text(MODULE.format(mark=tmp_path / "mark"))
    return folder


@pytest.fixture(autouse=True)
def yes(monkeypatch):
    """A user whose standard input answers every question with yes."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")


def mark(folder):
    return (folder.parent / "mark").exists()


@pytest.mark.parametrize("load", [load_model, load_tokenizer])
def test_code_is_run_only_if_asked_for(load, folder):
    with pytest.raises(EditError, match=r"needs code that comes with it.*`model\.trust_remote_code: true`"):
        load(str(folder))
    assert not mark(folder)
    assert type(load(str(folder), trust_remote_code=True)).__name__.startswith("Own")
    assert mark(folder)


def test_to_ask_how_deep_a_model_is_runs_no_code(folder, capsys):
    """The commands that choose layers ask for it before any model is loaded."""
    edits = folder.parent / "edits.csv"
    edits.write_text("subject,prompt,target_new\nAnna,{} lives in,Rome\n")
    with pytest.raises(SystemExit) as refused:
        main(["edit", str(folder), str(edits)])
    assert refused.value.code == 2
    assert "trust_remote_code" in capsys.readouterr().err
    with pytest.raises(EditError, match="trust_remote_code"):
        depth_of(str(folder))
    assert not mark(folder)
    assert depth_of(str(folder), trust_remote_code=True) == 3


def fit(folder, *more):
    settings = {
        "model.model": folder,
        "trainer.logger.save_dir": folder.parent / "runs",
        "data.edits": 2,
        "model.edits_per_update": 1,
    }
    settings |= {"watch.max_growth": "null", "watch.max_worse": "null"}
    settings |= {"model.values.steps": 2, "model.second_moment.tokens": 512}
    settings["model.second_moment.cache_dir"] = folder.parent / "runs" / "cache"
    words = [f"--{name}={value}" for name, value in settings.items()]
    main(["fit", *words, *more])


@pytest.mark.slow
def test_a_run_needs_the_setting_and_its_checkpoint_does_not_remember_it(folder, capsys):
    with pytest.raises(SystemExit) as refused:
        fit(folder)
    assert refused.value.code == 2
    assert "trust_remote_code" in capsys.readouterr().err
    assert not mark(folder)
    fit(folder, "--model.trust_remote_code=true")
    # A refused run has left no folder.
    run = folder.parent / "runs" / "version_0"
    (folder.parent / "mark").unlink()
    for command in (
        ["test", "--ckpt_path", str(run / "edited.ckpt")],
        ["fit", "--ckpt_path", str(run / "checkpoints" / "update-000001.ckpt")],
        ["updates", "remove", str(run), "1"],
    ):
        with pytest.raises(SystemExit) as refused:
            main(command)
        assert refused.value.code == 2, command
        assert "trust_remote_code" in capsys.readouterr().err, command
    with pytest.raises(EditError, match="trust_remote_code"):
        change_updates(run, "remove", [1])
    assert not mark(folder)
    main(["updates", "remove", str(run), "1", "--trust_remote_code"])
    assert "layer 0" in capsys.readouterr().out
