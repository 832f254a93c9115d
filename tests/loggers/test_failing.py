"""A logger that fails, before a run or in the middle of one, costs no edit."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_edit.callbacks import EditCheckpoint, EditReport, ExportEdits, LogResults, RecordResults
from lightning_edit.cli.main import main
from lightning_edit.commands.argument_words import with_folders
from lightning_edit.datamodules import TinyWorld
from lightning_edit.loggers.failing import refused_by_logger
from tests.shared_runs import SMALL
from tests.small_runs import module
from tests.trainers import quiet_trainer


class Fails(CSVLogger):
    """A logger whose disk is full after the first update."""

    def log_metrics(self, metrics, step=None):
        if "layer_0/update_norm" in metrics and step > 2:
            raise OSError(28, "No space left on device")
        super().log_metrics(metrics, step)


def test_a_logger_that_fails_in_the_middle_is_left_out(tmp_path):
    board, fails = TensorBoardLogger(tmp_path / "board", name=None), Fails(tmp_path / "csv", name=None)
    made, saved = module(), (EditCheckpoint(), ExportEdits(model=False))
    shown = (EditReport(table=False), RecordResults(), LogResults())
    runner = quiet_trainer(tmp_path, *saved, *shown, logger=[board, fails])
    with pytest.warns(UserWarning, match="Fails failed and is left out from here on.*OSError.*No space left"):
        runner.fit(made, datamodule=TinyWorld(edits=6))
    folder = Path(board.log_dir)
    assert made.loop.edits_written == 6 and (folder / "update.safetensors").is_file()
    assert runner.loggers == [board]
    steps = [event.step for event in EventAccumulator(str(folder)).Reload().Scalars("layer_0/update_norm")]
    assert steps == [2, 4, 6]


def test_a_package_that_is_missing_is_named():
    error = ModuleNotFoundError("Requirement 'wandb>=0.12.10' not met. HINT: Try running `pip install -U wandb`")
    assert refused_by_logger([error]) == (
        "The logger needs a package that is not installed: pip install 'lightning-edit[wandb]'."
    )
    assert refused_by_logger([ModuleNotFoundError("No module named 'sqlalchemy'")]).endswith(
        "'lightning-edit[mlflow]'."
    )
    assert refused_by_logger([ValueError("anything else"), OSError("of another kind")]) is None


@pytest.mark.parametrize(
    ("chosen", "package", "needed"),
    [
        ("WandbLogger", "wandb", "'lightning-edit[wandb]'"),
        ("MLFlowLogger", "mlflow", "'lightning-edit[mlflow]'"),
        ("CometLogger", "comet_ml", "comet-ml"),
    ],
)
@pytest.mark.parametrize("how", ["+=", "="])
def test_a_logger_without_its_package_is_refused_in_one_line(chosen, package, needed, how, capsys):
    if find_spec(package) is not None:
        pytest.skip(f"{package} is installed")
    with pytest.raises(SystemExit) as end:
        main(["fit", f"--trainer.logger{how}{chosen}"])
    assert end.value.code == 2
    said = capsys.readouterr().err.replace("Seed set to 0\n", "")
    assert said == (
        f"error: `trainer.logger`: {chosen} needs the package {package}, which is not installed: pip install {needed}, "
        "or leave this logger out.\n"
    )


def test_an_added_file_logger_writes_where_runs_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = [f"--{name}={value}" for name, value in SMALL.items()]
    main(["fit", *settings, "--data.edits=2", "--collateral.prompts=0", "--trainer.logger+=CSVLogger"])
    assert (tmp_path / "runs" / "version_0" / "metrics.json").is_file()
    assert (tmp_path / "runs" / "lightning_logs" / "version_0" / "metrics.csv").is_file()


@pytest.mark.parametrize(
    ("words", "folder"),
    [
        (["--trainer.logger+=CSVLogger"], "runs"),
        (["--trainer.logger+", "lightning.pytorch.loggers.CSVLogger"], "runs"),
        (["--trainer.logger.save_dir", "there", "--trainer.logger+=TensorBoardLogger"], "there"),
        (["--trainer.logger+=CSVLogger", "--trainer.logger+=CSVLogger", "--trainer.logger.save_dir=csv"], "runs"),
        (["--trainer.logger+=CSVLogger", "--trainer.logger.save_dir=csv"], None),
        (["--trainer.logger+=WandbLogger"], None),
    ],
    ids=str,
)
def test_an_added_logger_is_given_a_folder_if_it_has_none(words, folder):
    added = [word for word in with_folders(["fit", *words]) if word not in words][1:]
    assert added == ([] if folder is None else [f"--trainer.logger.save_dir={folder}"])


@pytest.mark.skipif(find_spec("wandb") is None, reason="`make test-loggers` installs wandb")
def test_without_a_login_nothing_is_edited_and_the_message_says_what_to_do(tmp_path, monkeypatch, capsys):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("NETRC", "WANDB_CONFIG_DIR", "WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    import wandb

    wandb.teardown()
    monkeypatch.setattr("sys.stdin", open("/dev/null"))  # noqa: PTH123, SIM115
    settings = [f"--{name}={value}" for name, value in SMALL.items()]
    online = ("--trainer.logger+=WandbLogger", f"--trainer.logger.save_dir={tmp_path}")
    with pytest.raises(SystemExit) as end:
        main(["fit", *settings, f"--trainer.logger.save_dir={tmp_path / 'runs'}", *online])
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert "The logger (wandb) cannot be used: " in said and "offline: true" in said
    assert not list((tmp_path / "runs").rglob("checkpoints"))


@pytest.mark.skipif(find_spec("mlflow") is None, reason="`make test-loggers` installs mlflow")
def test_a_store_that_is_refused_is_said_with_one_that_is_not(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    settings = [f"--{name}={value}" for name, value in SMALL.items()]
    with pytest.raises(SystemExit) as end:
        main(["fit", *settings, "--trainer.logger=MLFlowLogger", f"--trainer.logger.tracking_uri=redis://{tmp_path}"])
    assert end.value.code == 2
    assert "`tracking_uri: sqlite:///" in capsys.readouterr().err
