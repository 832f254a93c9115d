"""A run that is refused leaves no folder behind, and takes nothing away that is not its own."""

import os
import subprocess
import sys

import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from lightning_edit.cli import main as cli
from lightning_edit.run.module import EditingModule
from lightning_edit.storage.run_folder import clear_refused, run_folder
from tests.shared_runs import SMALL
from tests.trainers import quiet_trainer

HOLD = """
import sys, time
from pathlib import Path
from lightning_edit.storage.run_lock import RunLock
lock = RunLock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


def refused(capsys, folder, *args, command="fit", **changes):
    settings = SMALL | {"trainer.logger.save_dir": folder, "model.second_moment.cache_dir": folder.parent / "cache"}
    words = [f"--{name}={value}" for name, value in (settings | changes).items() if value is not None]
    with pytest.raises(SystemExit) as left:
        cli.main([command, *words, *args])
    assert left.value.code == 2
    return " ".join(capsys.readouterr().err.split())


def edits(folder, text):
    path = folder / "edits.csv"
    path.write_text(text)
    return {"data": "OwnEdits", "data.path": path, "data.edits": None}


@pytest.mark.parametrize("name", [[], ["--name=crj"]], ids=["numbered", "named"])
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model.layers": "[99]"}, "99"),
        ({"model.model": "nowhere-at-all"}, "nowhere-at-all"),
        ({"model.down_projection": "none.{}"}, "none."),
        ({"data.edits": 10**6}, "edits"),
    ],
    ids=str,
)
def test_a_refused_run_leaves_no_folder(changes, said, name, tmp_path, capsys):
    assert said in refused(capsys, tmp_path / "runs", *name, **changes)
    assert not list((tmp_path / "runs").rglob("*"))


@pytest.mark.parametrize("command", ["fit", "test"])
def test_records_are_read_before_a_logger_writes(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(TensorBoardLogger, "experiment", property(lambda self: pytest.fail("a logger was opened")))
    own = edits(tmp_path, "subject,prompt\nAnna,{} lives in\n")
    assert "target_new" in refused(capsys, tmp_path / "runs", "--name=crj", command=command, **own)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("logger", ["CSVLogger", "false"])
def test_other_loggers_leave_none_either(logger, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    where = {"trainer.logger.save_dir": None, "trainer.default_root_dir": tmp_path / "runs", "model.layers": "[99]"}
    own = {**where, "trainer.logger": logger}
    if logger == "CSVLogger":
        own["trainer.logger.init_args.save_dir"] = tmp_path / "runs"
    refused(capsys, tmp_path / "runs", **own)
    assert [path.name for path in (tmp_path / "runs").rglob("*") if not path.is_dir()] == []
    assert not list((tmp_path / "runs").rglob("version_*"))


def test_a_folder_that_was_there_stays_with_what_is_in_it(tmp_path, capsys):
    mine = tmp_path / "runs" / "crj" / "notes.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    refused(capsys, tmp_path / "runs", "--name=crj", **{"model.layers": "[99]"})
    assert mine.read_text() == "mine"


def test_a_run_that_has_measured_something_keeps_its_folder(tmp_path, monkeypatch, capsys):
    def refuse(self):
        from lightning_edit import EditError

        raise EditError("refused late")

    monkeypatch.setattr(EditingModule, "on_fit_start", refuse)
    assert "refused late" in refused(capsys, tmp_path / "runs", **{"trainer.callbacks": "null"})
    assert list((tmp_path / "runs" / "version_0").glob("events.*"))


# -- what is taken away ------------------------------------------------------------------------------------------------


@pytest.fixture
def trainer(tmp_path):
    """A trainer with a folder of its own, in which its logger has written."""
    made = quiet_trainer(tmp_path, logger=TensorBoardLogger(tmp_path, name=None))
    folder = run_folder(made)
    made.logger.experiment.add_scalar("x", 1.0)
    (folder / "config.yaml").write_text("model: x")
    (folder / "hparams.yaml").write_text("{}")
    assert list(folder.glob("events.*"))
    return made


def test_logs_and_settings_alone_go(trainer):
    clear_refused(trainer)
    assert not run_folder(trainer).exists()


@pytest.mark.parametrize(
    "name",
    ["metrics.json", "mine.txt", "model/x", "events.out.tfevents.1700000000.host.{another}.0", "events.mine"],
)
def test_anything_else_keeps_the_folder_and_all_that_is_in_it(name, trainer):
    folder, name = run_folder(trainer), name.format(another=os.getpid() + 1)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("x")
    before = sorted(folder.rglob("*"))
    clear_refused(trainer)
    assert sorted(folder.rglob("*")) == before


def test_a_link_is_not_followed(trainer, tmp_path):
    folder = run_folder(trainer)
    (tmp_path / "metrics.csv").write_text("mine")
    (folder / "metrics.csv").symlink_to(tmp_path / "metrics.csv")
    clear_refused(trainer)
    assert (tmp_path / "metrics.csv").read_text() == "mine"
    assert (folder / "config.yaml").exists()


def test_a_folder_that_another_process_works_on_stays(trainer):
    folder = run_folder(trainer)
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        clear_refused(trainer)
        assert (folder / "config.yaml").exists()
        process.kill()


@pytest.mark.parametrize("version", [None, "named"])
@pytest.mark.parametrize("kind", [CSVLogger, TensorBoardLogger])
def test_of_two_trainers_the_one_that_came_later_made_no_folder(kind, version, tmp_path):
    first, second = (quiet_trainer(tmp_path, logger=kind(tmp_path, name="x", version=version)) for _ in range(2))
    folders = [run_folder(one) for one in (first, second)]
    assert (folders[0] == folders[1]) == (version is not None)
    (folders[0] / "config.yaml").write_text("of the first")
    clear_refused(second)
    assert (folders[0] / "config.yaml").read_text() == "of the first"
    clear_refused(first)
    assert not folders[0].exists()
