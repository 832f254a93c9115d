"""W&B, offline: what a run leaves in W&B's own files, which `wandb sync` would send."""

import json

import pytest
from jsonargparse import Namespace

from lightning_edit.commands.resume_arguments import same_folder
from tests.shared_runs import command

wandb = pytest.importorskip("wandb", reason="`make test-loggers` installs wandb")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A sequential run with TensorBoard and W&B; its folder, and that of W&B."""
    folder = tmp_path_factory.mktemp("wandb")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
            patch.setenv(name, str(folder / name.lower()))
        # What wandb has read of the environment is kept in this process.
        wandb.teardown()
        options = ("--trainer.logger+=WandbLogger", "--trainer.logger.offline=true", "--trainer.logger.project=edits")
        made = command(folder, *options, f"--trainer.logger.save_dir={folder}")
        wandb.finish()
        wandb.teardown()
        yield made, next(folder.glob("wandb/offline-run-*"))


def test_the_examples_are_a_table(run):
    records = [json.loads(line) for line in (run[0] / "records.jsonl").read_text().splitlines()]
    table = json.loads(next(run[1].glob("files/media/table/answers/edits_*.table.json")).read_text())
    assert table["columns"][:5] == ["prompt", "new answer", "before", "after", "says it"]
    asked = {(record["prompt"].replace("{}", record["subject"]), record["target_new"]) for record in records}
    assert {(row[0], row[1]) for row in table["data"]} == asked and len(table["data"]) == 6
    assert [row[4] for row in table["data"]] == sorted(row[4] for row in table["data"])


def test_the_report_is_shown_and_kept_as_an_artifact(run):
    page = (run[0] / "report.html").read_bytes()
    shown = next(run[1].glob("files/media/html/report_*.html")).read_bytes()
    assert b"</html>" in page and shown == page
    identity = json.loads((run[0] / "loggers.json").read_text())["WandbLogger"]
    assert f"report-{identity}".encode() in next(run[1].glob("*.wandb")).read_bytes()
    kept = [file.read_bytes() for file in run[0].parent.glob("wandb_data_dir/artifacts/staging/*")]
    assert page in kept


def test_figures_settings_and_pictures_are_there(run):
    content = next(run[1].glob("*.wandb")).read_bytes()
    for name in (b"edit/efficacy_score", b"layer_0/weight_growth", b"seconds/values", b"value_search_each/nll"):
        assert name in content, name
    assert b"second_moment_weight" in content and b'"edits_per_update"' in content
    assert list(run[1].glob("files/media/images/run/before_and_after_*.png"))


def test_a_run_that_goes_on_is_the_same_run(run):
    board, other = ({"class_path": name, "init_args": Namespace()} for name in ("TensorBoardLogger", "WandbLogger"))
    settings = Namespace(logger=[Namespace(**board), Namespace(**other)])
    same_folder(settings, run[0])
    assert settings.logger[0].init_args.version == "version_0"
    assert settings.logger[1].init_args.version == run[1].name.rpartition("-")[2]
