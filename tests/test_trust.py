"""What files of somebody else's may not do: nothing is imported, made or run because they name it."""

import shutil
import sys
from pathlib import Path

import pytest
import torch

import cli
from datamodules import TinyWorld
from lightning_edit.errors import EditError
from lightning_edit.module import EditingModule
from tests.test_resuming import SMALL

RUN = {**SMALL, "data.edits": 2, "model.second_moment.cache_dir": "cache"}
EVIL = {"class_path": "payload.P", "init_args": {}}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        cli.main(["fit", *(f"--{name}={value}" for name, value in RUN.items())])
    return folder / "runs" / "version_0"


@pytest.fixture
def run(finished, tmp_path, monkeypatch):
    """A copy of a run, beside which a module lies that leaves a trace when it is imported."""
    shutil.copytree(finished, tmp_path / "runs" / "version_0")
    payload = "from pathlib import Path\nPath({!r}).touch()\nclass P: ...\ndef f(*a, **k): ...\n"
    (tmp_path / "payload.py").write_text(payload.format(str(tmp_path / "ran")))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path / "runs" / "version_0"
    sys.modules.pop("payload", None)


def put(content, place, value):
    *path, last = place
    for key in path:
        content = content[key]
    content[last] = value


def refused(capfd, *args):
    with pytest.raises(SystemExit) as left:
        cli.main(list(map(str, args)))
    shown = capfd.readouterr().err
    assert left.value.code == 2, shown
    assert "Traceback" not in shown
    return shown.replace("\n", " ")


PLACES = [
    (("datamodule_hyper_parameters", "_class_path"), "payload.P"),
    (("hyper_parameters", "_class_path"), "payload.P"),
    (("hyper_parameters", "_class_path"), "payload"),
    (("hyper_parameters", "_class_path"), ["payload.P"]),
    (("hyper_parameters", "_class_path"), "lightning_edit.payload.P"),
    (("hyper_parameters", "_instantiator"), "payload.f"),
    (("hyper_parameters", "solver"), EVIL),
    (("hyper_parameters", "solver"), "payload.P"),
    (("hyper_parameters", "solver"), "evil.yaml"),
    (("hyper_parameters", "solver"), "{class_path: payload.P}"),
    (("hyper_parameters", "solver", "class_path"), "subprocess.Popen"),
    (("hyper_parameters", "solver", "init_args", "ridge"), EVIL),
    (("hyper_parameters", "post_processing"), [EVIL]),
    (("hyper_parameters", "post_processing"), ["payload.P"]),
    (("hyper_parameters", "values"), EVIL),
    (("hyper_parameters", "values", "lr"), EVIL),
    (("hyper_parameters", "device_map"), {"": EVIL}),
    (("hyper_parameters", "anything"), EVIL),
    (("hyper_parameters", "dict_kwargs"), EVIL),
    (("datamodule_hyper_parameters", "preservation"), EVIL),
    (("datamodule_hyper_parameters", "preservation"), "payload.P"),
    (("datamodule_hyper_parameters", "_instantiator"), "payload.f"),
    (("datamodule_hyper_parameters", "case_ids"), [[EVIL]]),
]


@pytest.mark.parametrize(("place", "value"), PLACES, ids=lambda value: str(value)[:60])
def test_a_checkpoint_imports_nothing_that_it_names(run, place, value, capfd):
    (run.parent.parent / "evil.yaml").write_text("class_path: payload.P\n")
    file = run / "edited.ckpt"
    content = torch.load(file, weights_only=True)
    put(content, place, value)
    torch.save(content, file)
    refused(capfd, "test", "--ckpt_path", file)
    assert not Path("ran").exists()
    for kind in (EditingModule, TinyWorld):
        with pytest.raises(Exception):  # noqa: B017  (in Python the message is Lightning's where it is not ours)
            kind.load_from_checkpoint(file)
    assert not Path("ran").exists()


def test_a_class_that_is_not_known_is_named_in_the_message(run, capfd):
    content = torch.load(run / "edited.ckpt", weights_only=True)
    content["hyper_parameters"]["solver"] = EVIL
    torch.save(content, run / "edited.ckpt")
    assert "'payload.P'" in refused(capfd, "test", "--ckpt_path", run / "edited.ckpt")
    with pytest.raises(EditError, match=r"payload\.P"):
        EditingModule.load_from_checkpoint(run / "edited.ckpt")


def test_a_checkpoint_does_not_say_where_this_machine_keeps_things(run):
    content = torch.load(run / "edited.ckpt", weights_only=True)
    content["hyper_parameters"]["values"]["cache_dir"] = "elsewhere"
    content["hyper_parameters"]["second_moment"]["cache_dir"] = "elsewhere"
    content["hyper_parameters"]["offload_folder"] = "elsewhere"
    torch.save(content, run / "edited.ckpt")
    cli.main(["test", "--ckpt_path", str(run / "edited.ckpt"), "--model.second_moment.cache_dir=mine"])
    assert not Path("elsewhere").exists()
    assert "cache_dir: mine" in Path("runs/version_1/config.yaml").read_text()


def test_classes_that_the_user_names_may_still_be_measured_beside_a_checkpoint(run):
    Path("own_callback.py").write_text(
        "from lightning.pytorch import Callback\n"
        "from pathlib import Path\n"
        "class Own(Callback):\n"
        "    def on_test_end(self, *_): Path('own').touch()\n"
    )
    cli.main(["test", "--ckpt_path", str(run / "edited.ckpt"), "--trainer.callbacks", "own_callback.Own"])
    assert Path("own").exists()
