"""Every run has a folder of its own, and touches nothing there but its own files."""

import json

import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment

from lightning_edit import EditError
from lightning_edit.callbacks import (
    Downstream,
    EditCheckpoint,
    EditReport,
    ExportEdits,
    RecordResults,
    Retention,
    Watch,
)
from lightning_edit.callbacks.log_files import keep_csv
from lightning_edit.cli import main as cli
from lightning_edit.datamodules import TinyWorld
from lightning_edit.run.edit_callback import EditCallback
from lightning_edit.storage.checkpoints.checkpoint_file import checkpoints
from lightning_edit.storage.run_folder import run_folder
from tests.small_runs import module
from tests.trainers import quiet_trainer

FOREIGN = {
    "thesis.jsonl": '{"years": 4}\n' * 100,
    "zsre.jsonl": '{"subject": "mine"}\n' * 100,
    "records.jsonl": '{"mine": true}\n' * 100,
    "updates.csv": "mine\n" * 100,
    "events.out.tfevents.1700000000.host.1.0": "of another program" * 100,
    "model/weights.txt": "mine",
    "updates/update-00001.safetensors": "mine",
    "checkpoints/update-best.ckpt": "mine",
}


class Remote(Logger):
    """Names a run by an id that is known once the run has begun, as W&B and MLflow do."""

    def __init__(self, save_dir, identity="3f2a"):
        super().__init__()
        self._save_dir, self._identity, self._experiment = save_dir, identity, None

    save_dir = property(lambda self: self._save_dir)
    name = property(lambda self: "project")
    version = property(lambda self: self._experiment)

    @property
    @rank_zero_experiment
    def experiment(self):
        self._experiment = self._identity
        return self._experiment

    def log_metrics(self, metrics, step=None):
        pass

    def log_hyperparams(self, params, *args, **kwargs):
        pass


class Stop(EditCallback):
    """A power cut after so many updates."""

    def __init__(self, number):
        self.number = number

    def on_update_kept(self, trainer, pl_module):
        if pl_module.loop.updates_written == self.number:
            raise RuntimeError("power cut")


def callbacks():
    measured = Retention(every_n_updates=1), Watch(sample=2), RecordResults(), EditReport(table=False)
    return [*measured, EditCheckpoint(), ExportEdits()]


def scatter(folder):
    for name, content in FOREIGN.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text(content)


def untouched(folder):
    return all((folder / name).read_text() == content for name, content in FOREIGN.items())


LOGGERS = {
    "none": (lambda: False, "lightning_edit_run/version_0"),
    "remote, here": (lambda: Remote("."), "project/3f2a"),
    "remote, no folder": (lambda: Remote(None), "project/3f2a"),
    "remote that has no id": (lambda: Remote(".", None), "lightning_edit_run/version_0"),
    "csv": (lambda: CSVLogger(".", name=None), "version_0"),
    "tensorboard without a version": (lambda: TensorBoardLogger(".", name="", version=""), "version_0"),
    "several": (lambda: [Remote("."), TensorBoardLogger("tb", name=None)], "tb/version_0"),
}


@pytest.mark.parametrize("kind", LOGGERS)
@pytest.mark.slow
def test_a_run_goes_on_in_a_folder_of_its_own_and_leaves_all_else_alone(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scatter(tmp_path)
    make, place = LOGGERS[kind]
    data, begun = TinyWorld(edits=4), quiet_trainer(tmp_path, *callbacks(), Stop(1), logger=make())
    with pytest.raises(RuntimeError, match="power cut"):
        begun.fit(module(), datamodule=data)
    folder = tmp_path / place
    assert run_folder(begun).resolve() == folder
    (folder / "notes.jsonl").write_text("of the user")
    (folder / "checkpoints" / "update-best.ckpt").write_text("of the user")
    again, made = quiet_trainer(tmp_path, *callbacks(), logger=make()), module()
    again.fit(made, datamodule=data, ckpt_path=checkpoints(folder)[0], weights_only=True)
    again.test(made, datamodule=data, verbose=False)
    assert run_folder(again).resolve() == folder
    assert made.loop.edits_written == 4
    assert {"model", "update.safetensors", "edited.ckpt", "metrics.json", "records.jsonl", "updates.csv"} <= {
        path.name for path in folder.iterdir()
    }
    assert [json.loads(line)["edits"] for line in (folder / "curves.jsonl").read_text().splitlines()] == [2, 4]
    assert (folder / "notes.jsonl").read_text() == "of the user"
    assert (folder / "checkpoints" / "update-best.ckpt").read_text() == "of the user"
    assert untouched(tmp_path)
    if kind == "none":
        assert [path.name for path in folder.parent.iterdir()] == ["version_0"]


@pytest.mark.parametrize("step", ["fit", "test"])
def test_the_files_of_another_run_are_never_replaced(step, tmp_path):
    scatter(tmp_path / "mine")
    logger = TensorBoardLogger(tmp_path, name="", version="mine")
    runner = quiet_trainer(tmp_path, *callbacks(), Downstream(), logger=logger)
    with pytest.raises(EditError, match="never replaced"):
        getattr(runner, step)(module(), datamodule=TinyWorld(edits=2))
    assert untouched(tmp_path / "mine")


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.slow
def test_a_trainer_that_is_used_again_does_not_replace_what_it_wrote_before(kept, tmp_path):
    watching = [Retention(every_n_updates=1), Watch(sample=2), RecordResults(), EditReport(table=False)]
    again = quiet_trainer(tmp_path, *watching, *([EditCheckpoint()] if kept else []), ExportEdits(model=False))
    first = module()
    again.fit(first, datamodule=TinyWorld(edits=4))
    again.test(first, datamodule=TinyWorld(edits=4), verbose=False)
    folder = run_folder(again)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for step in (again.fit, again.test):
        with pytest.raises(EditError, match="never replaced"):
            step(module(), datamodule=TinyWorld(edits=2))
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_the_name_of_a_folder_may_lead_back_to_what_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr(Remote, "version", property(lambda self: ".."))
    scatter(tmp_path)
    runner = quiet_trainer(tmp_path, *callbacks(), logger=Remote(tmp_path))
    with pytest.raises(EditError, match="never replaced"):
        runner.fit(module(), datamodule=TinyWorld(edits=2))
    assert untouched(tmp_path)


@pytest.mark.slow
def test_a_csv_logger_deletes_nothing_of_a_run_that_is_there(tmp_path, capsys):
    folder = tmp_path / "version_0"
    folder.mkdir()
    for name in ("metrics.csv", "metrics.json"):
        (folder / name).write_text("of another run")
    place = {"class_path": "CSVLogger", "init_args": {"save_dir": str(tmp_path), "name": None, "version": 0}}
    for command in ("fit", "test"):
        with pytest.raises(SystemExit) as status:
            cli.main([command, "--data.edits=2", f"--trainer.logger={json.dumps(place)}"])
        assert status.value.code == 2
        assert "never replaced" in capsys.readouterr().err
        assert (folder / "metrics.csv").read_text() == "of another run"


def test_two_runs_that_begin_at_once_do_not_share_a_folder(tmp_path):
    trainers = [quiet_trainer(tmp_path, logger=TensorBoardLogger(tmp_path, name=None)) for _ in range(2)]
    # Both have looked which versions there are before either has made its folder.
    counted = [trainer.logger._get_next_version() for trainer in trainers]
    assert counted == [0, 0]
    assert [run_folder(trainer).name for trainer in trainers] == ["version_0", "version_1"]


@pytest.mark.slow
def test_the_command_line_goes_on_without_a_logger(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    scatter(tmp_path)
    small = {"model.values.steps": 3, "model.second_moment.tokens": 2000, "model.solver.ridge": 0.01}
    small |= {"model.edits_per_update": 2, "data.edits": 4, "trainer.logger": "false"}
    args = [f"--{name}={value}" for name, value in small.items()]
    cli.main(["fit", *args, f"--model.second_moment.cache_dir={tmp_path / 'cache'}"])
    folder = tmp_path / "lightning_edit_run" / "version_0"
    first = json.loads((folder / "metrics.json").read_text())
    checkpoints(folder)[0].unlink()
    cli.main(["fit", "--ckpt_path", str(checkpoints(folder)[0])])
    assert json.loads((folder / "metrics.json").read_text())["after"] == first["after"]
    assert [path.name for path in folder.parent.iterdir()] == ["version_0"]
    assert untouched(tmp_path)


def test_what_a_csv_logger_wrote_is_kept_when_a_run_goes_on(tmp_path):
    for value in (1.0, 2.0, 3.0):
        logger = CSVLogger(tmp_path, name=None, version="run")
        keep_csv([logger])
        logger.log_metrics({"loss": value}, step=0)
        logger.save()
    contents = [(tmp_path / "run" / f"metrics{part}.csv").read_text().split()[1] for part in (".1", ".2", "")]
    assert contents == ["1.0,0", "2.0,0", "3.0,0"]
