"""What files of somebody else's may not do: nothing is imported, made or run because they name it."""

import shutil
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch
import yaml

from lightning_edit.cli import main as cli
from lightning_edit.datamodules import TinyWorld
from lightning_edit.errors import EditError
from lightning_edit.run.module import EditingModule
from tests.shared_runs import SMALL

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
    for module in ("payload", "own_callback"):
        sys.modules.pop(module, None)


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


def slow(cases):
    return [pytest.param(*case, marks=pytest.mark.slow) for case in cases]


PLACES = [
    (("datamodule_hyper_parameters", "_class_path"), "payload.P"),
    (("hyper_parameters", "_class_path"), "payload.P"),
    (("hyper_parameters", "solver"), EVIL),
    (("hyper_parameters", "solver"), "evil.yaml"),
    (("hyper_parameters", "solver"), "{class_path: payload.P}"),
    (("hyper_parameters", "solver", "class_path"), "subprocess.Popen"),
    (("hyper_parameters", "solver", "init_args", "ridge"), EVIL),
    (("hyper_parameters", "post_processing"), ["payload.P"]),
    (("hyper_parameters", "values", "lr"), EVIL),
    (("hyper_parameters", "device_map"), {"": EVIL}),
    (("datamodule_hyper_parameters", "preservation"), EVIL),
    (("datamodule_hyper_parameters", "_instantiator"), "payload.f"),
]
# Further ones of the same kinds.
MORE_PLACES = [
    (("hyper_parameters", "_class_path"), "payload"),
    (("hyper_parameters", "_class_path"), ["payload.P"]),
    (("hyper_parameters", "_class_path"), "lightning_edit.payload.P"),
    (("hyper_parameters", "_instantiator"), "payload.f"),
    (("hyper_parameters", "solver"), "payload.P"),
    (("hyper_parameters", "post_processing"), [EVIL]),
    (("hyper_parameters", "values"), EVIL),
    (("hyper_parameters", "anything"), EVIL),
    (("hyper_parameters", "dict_kwargs"), EVIL),
    (("datamodule_hyper_parameters", "preservation"), "payload.P"),
    (("datamodule_hyper_parameters", "case_ids"), [[EVIL]]),
]


@pytest.mark.parametrize(
    ("place", "value"), [*PLACES[:6], *slow([*PLACES[6:], *MORE_PLACES])], ids=lambda value: str(value)[:60]
)
def test_a_checkpoint_imports_nothing_that_it_names(run, place, value, capfd):
    (run.parent.parent / "evil.yaml").write_text("class_path: payload.P\n")
    file = run / "edited.ckpt"
    content = torch.load(file, weights_only=True)
    put(content, place, value)
    torch.save(content, file)
    refused(capfd, "test", "--ckpt_path", file)
    assert not Path("ran").exists()
    own, other = (EditingModule, TinyWorld) if place[0] == "hyper_parameters" else (TinyWorld, EditingModule)
    with pytest.raises(Exception):  # noqa: B017  (in Python the message is Lightning's where it is not ours)
        own.load_from_checkpoint(file)
    # Whether the other part, whose settings are sound, is made or not.
    with suppress(EditError):
        other.load_from_checkpoint(file)
    assert not Path("ran").exists()


def test_a_class_that_is_not_known_is_named_in_the_message(run, capfd):
    content = torch.load(run / "edited.ckpt", weights_only=True)
    content["hyper_parameters"]["solver"] = EVIL
    torch.save(content, run / "edited.ckpt")
    assert "'payload.P'" in refused(capfd, "test", "--ckpt_path", run / "edited.ckpt")
    with pytest.raises(EditError, match=r"payload\.P"):
        EditingModule.load_from_checkpoint(run / "edited.ckpt")


def test_python_reads_settings_from_nowhere_else_in_a_checkpoint_or_beside_it(run):
    file = run / "edited.ckpt"
    with pytest.raises(EditError, match=r"by a trainer: trainer\.test"):
        EditingModule.load_from_checkpoint(file)
    assert type(TinyWorld.load_from_checkpoint(file)) is TinyWorld
    content = torch.load(file, weights_only=True)
    (run / "hparams.yaml").write_text("_instantiator: payload.f\nmodel: tiny\nlayers: [0]\n")
    for kind, hyper_parameters in (EditingModule, "hyper_parameters"), (TinyWorld, "datamodule_hyper_parameters"):
        # Lightning reads settings under their names of version 0.7 as well.
        settings = {name: value for name, value in content[hyper_parameters].items() if name[0] != "_"}
        for former in ("hparams", "module_arguments"):
            torch.save({**content, hyper_parameters: settings, former: {"_instantiator": "payload.f"}}, file)
            with pytest.raises(EditError, match=r"payload\.f"):
                kind.load_from_checkpoint(file)
        torch.save(content, file)
        with pytest.raises(EditError, match="hparams_file"):
            kind.load_from_checkpoint(file, hparams_file=run / "hparams.yaml")
        with pytest.raises(EditError, match="hparams_file"):
            kind.load_from_checkpoint(file, None, run / "hparams.yaml")
    assert not Path("ran").exists()


@pytest.mark.slow
def test_a_checkpoint_does_not_say_where_this_machine_keeps_things(run):
    content = torch.load(run / "edited.ckpt", weights_only=True)
    content["hyper_parameters"]["values"]["cache_dir"] = "elsewhere"
    content["hyper_parameters"]["second_moment"]["cache_dir"] = "elsewhere"
    content["hyper_parameters"]["offload_folder"] = "elsewhere"
    torch.save(content, run / "edited.ckpt")
    cli.main(["test", "--ckpt_path", str(run / "edited.ckpt"), "--model.second_moment.cache_dir=mine"])
    assert not Path("elsewhere").exists()
    assert "cache_dir: mine" in Path("runs/version_1/config.yaml").read_text()


@pytest.mark.slow
def test_classes_that_the_user_names_may_still_be_measured_beside_a_checkpoint(run):
    Path("own_callback.py").write_text(
        "from lightning.pytorch import Callback\n"
        "from pathlib import Path\n"
        "class Own(Callback):\n"
        "    def on_test_end(self, *_): Path('own').touch()\n"
    )
    cli.main(["test", "--ckpt_path", str(run / "edited.ckpt"), "--trainer.callbacks", "own_callback.Own"])
    assert Path("own").exists()


def config_with(run, place, value):
    content = yaml.safe_load((run / "config.yaml").read_text())
    put(content, place, value)
    (run / "config.yaml").write_text(yaml.safe_dump(content))


def first(run):
    """The checkpoint of the run before its last update."""
    return run / "checkpoints" / "update-000000.ckpt"


CALLBACK = ("trainer", "callbacks")
LOGGER = ("trainer", "logger", "init_args")
CONFIGS = [
    ((*CALLBACK, 0), {"class_path": "runs.version_0.payload.P"}),
    (CALLBACK, "payload.P"),
    (CALLBACK, "evil.yaml"),
    ((*CALLBACK, 0), {"class_path": "LambdaCallback", "init_args": {"on_fit_start": "payload.f"}}),
    ((*CALLBACK, 0), {"class_path": "ModelCheckpoint", "init_args": {"dirpath": "elsewhere"}}),
    ((*CALLBACK, 0), {"class_path": "lightning_edit.callbacks.Harness", "init_args": {"tasks": "./task.yaml"}}),
    (("harness", "tasks"), "./task.yaml"),
    (("model", "init_args", "evaluation"), {"wild": True, "judge": {"model": "it", "url": "http://127.0.0.1:9/v1"}}),
    (("harness", "tasks"), "copa,plain"),
    (("harness", "include_path"), "tasks"),
    (("model", "class_path"), "payload.P"),
    (("model",), "evil.yaml"),
    (("model", "init_args", "solver"), {"class_path": "payload.P"}),
    (("model", "init_args", "values", "cache_dir"), "../elsewhere"),
    (("model", "init_args", "second_moment", "cache_dir"), "~/elsewhere"),
    (("data", "class_path"), "payload.P"),
    (("data",), "evil.yaml"),
    (("trainer",), "trainer.yaml"),
    (("trainer", "profiler"), {"class_path": "SimpleProfiler", "init_args": {"dirpath": "elsewhere"}}),
    (("trainer", "strategy"), {"class_path": "DDPStrategy", "init_args": {"ddp_comm_hook": "payload.f"}}),
    (("trainer", "default_root_dir"), "../elsewhere"),
    (("trainer", "logger"), {"class_path": "payload.P"}),
    (("trainer", "logger"), {"class_path": "MLFlowLogger", "init_args": {"tracking_uri": "http://127.0.0.1:9"}}),
    ((*LOGGER, "sub_dir"), "../../../elsewhere"),
    (("weights_only",), False),
    (("config",), "evil.yaml"),
]
# Further ones of the same kinds.
MORE_CONFIGS = [
    (
        ("trainer", "logger"),
        {"class_path": "MLFlowLogger", "init_args": {"tracking_uri": "sqlite:////elsewhere/mlflow.db"}},
    ),
    (
        ("trainer", "logger"),
        {"class_path": "MLFlowLogger", "init_args": {"tracking_uri": "sqlite:///file:/etc/x?uri=true"}},
    ),
    ((*CALLBACK, 0), {"class_path": "payload.P"}),
    ((*CALLBACK, 0), "payload.P"),
    ((*CALLBACK, 0), {"class_path": "lightning.pytorch.callbacks.LambdaCallback"}),
    ((*CALLBACK, 0), {"class_path": "lightning.pytorch.callbacks.lambda_function.LambdaCallback"}),
    ((*CALLBACK, 0), {"class_path": "lightning.pytorch.callbacks.ModelPruning"}),
    ((*CALLBACK, 0), {"class_path": "ModelCheckpoint", "init_args": {"filename": "../../../elsewhere/x"}}),
    (("harness", "tasks"), ["task.yaml"]),
    (("model",), "payload.P"),
    (("model", "init_args", "solver"), "payload.P"),
    (("model", "init_args", "offload_folder"), "/tmp/elsewhere"),
    (("trainer", "profiler"), {"class_path": "SimpleProfiler", "init_args": {"filename": "/tmp/elsewhere/x"}}),
    (("trainer", "profiler"), "payload.P"),
    (("trainer", "strategy"), "payload.P"),
    (("trainer", "strategy"), {"class_path": "payload.P"}),
    (("trainer", "plugins"), ["payload.P"]),
]


@pytest.mark.parametrize(
    ("place", "value"), [*CONFIGS[:13], *slow([*CONFIGS[13:], *MORE_CONFIGS])], ids=lambda value: str(value)[:60]
)
def test_the_configuration_beside_a_checkpoint_runs_nothing_and_writes_nowhere_else(run, place, value, capfd):
    top = run.parent.parent
    shutil.copy(top / "payload.py", run)
    (top / "plain").write_text("task: plain\n")
    (top / "tasks").mkdir()
    (top / "task.yaml").write_text("task: mine\nprocess_docs: !function payload.f\n")
    (top / "evil.yaml").write_text("class_path: payload.P\n")
    (top / "trainer.yaml").write_text("profiler: {class_path: SimpleProfiler, init_args: {dirpath: elsewhere}}\n")
    config_with(run, place, value)
    shown = refused(capfd, "fit", "--ckpt_path", first(run))
    assert "config" in shown
    assert not (top / "ran").exists()
    for elsewhere in (top / "elsewhere", top.parent / "elsewhere", Path("/tmp/elsewhere"), Path("~/elsewhere")):
        assert not elsewhere.expanduser().exists()


@pytest.mark.slow
def test_a_configuration_that_is_trusted_is_obeyed(run, capfd):
    config_with(run, (*CALLBACK, 0), {"class_path": "own_callback.Own"})
    config_with(run, ("model", "init_args", "second_moment", "cache_dir"), "../elsewhere")
    Path("own_callback.py").write_text("from lightning.pytorch import Callback\nclass Own(Callback): ...\n")
    assert "--trust_config" in refused(capfd, "fit", "--ckpt_path", first(run))
    cli.main(["fit", "--trust_config", "--ckpt_path", str(first(run))])
    assert "own_callback" in sys.modules
    assert Path("../elsewhere").is_dir()


@pytest.mark.slow
def test_what_the_user_types_is_trusted(run):
    config_with(run, (*CALLBACK, 0), {"class_path": "lightning_edit.callbacks.ShowExamples"})
    Path("own_callback.py").write_text(
        "from lightning.pytorch import Callback\n"
        "from pathlib import Path\n"
        "class Own(Callback):\n"
        "    def on_test_end(self, *_): Path('own').touch()\n"
    )
    cli.main(
        [
            *("fit", "--ckpt_path", str(first(run)), "--trainer.callbacks+=own_callback.Own"),
            "--model.second_moment.cache_dir=../elsewhere",
        ]
    )
    assert Path("own").exists()
    assert Path("../elsewhere").is_dir()


HOSTILE = [
    (("edits", "before"), {"x": 1.0}),
    (("run", "offered"), 2**40),
    (("run", "added"), {7: {"left": torch.zeros(2, 2, dtype=torch.float64), "right": None}}),
    (("random", "python"), [3, ["x"], None]),
    (("callbacks", "EditCheckpoint"), {"sizes": {"../x": -1}}),
    (("optimizer_states",), 5),
    (("hyper_parameters", "solver", "class_path"), []),
    (("state_dict",), {"model.transformer.wte.weight": torch.zeros(2, 2)}),
]
# Further ones of the same kinds.
MORE_HOSTILE = [
    (("edits", "records"), "x"),
    (("run", "pending"), [{"positions": [0]}]),
    (("random", "torch"), torch.zeros(3, dtype=torch.uint8)),
    (("callbacks", "Watch"), 5),
    (("loops",), {"fit_loop": {}}),
    (("pytorch-lightning_version",), "x"),
    (("hyper_parameters", "layers"), "x"),
    (("state_dict",), {}),
]


@pytest.mark.filterwarnings("default::UserWarning")
@pytest.mark.parametrize(
    ("place", "value"), [*HOSTILE[:4], *slow([*HOSTILE[4:], *MORE_HOSTILE])], ids=lambda value: str(value)[:60]
)
@pytest.mark.slow
def test_a_checkpoint_that_was_made_by_hand_gets_a_result_or_one_message(run, place, value, capfd):
    file = run / "checkpoints" / "update-000001.ckpt"
    content = torch.load(file, weights_only=True)
    put(content, place, value)
    torch.save(content, file)
    for args in (["test"], ["fit", "--trainer.logger.init_args.flush_secs=1"]):
        try:
            cli.main([*args, "--ckpt_path", str(file)])
        except SystemExit as left:
            assert left.code == 2
            shown = capfd.readouterr().err
            assert "error:" in shown
            assert "Traceback" not in shown
