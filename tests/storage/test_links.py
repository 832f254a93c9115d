"""Links among a run's own files are refused, and what they point to is left alone."""

import os
import shutil

import pytest
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_edit import EditError
from lightning_edit.callbacks.log_files import cut_back
from lightning_edit.cli import main as cli
from lightning_edit.datamodules import TinyWorld
from lightning_edit.storage.cache import Cache
from lightning_edit.storage.checkpoints.checkpoint_file import checkpoints
from lightning_edit.updates.files.update_list import UpdateList, open_updates
from lightning_edit.updates.undo import change_updates
from tests.small_models import make_factors
from tests.small_runs import fit, module

LINKED = [
    "curves.jsonl",
    "records.jsonl",
    "updates.csv",
    "metrics.json",
    "update.safetensors",
    "edited.ckpt",
    "model",
    "model/README.md",
    "updates",
    "updates/update-00002.safetensors",
    "checkpoints",
    "checkpoints/values",
    "checkpoints/values/values-0123456789abcdef0123456789abcdef.safetensors",
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return fit(tmp_path_factory.mktemp("finished"), module(), TinyWorld(edits=6))


@pytest.fixture
def run(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "version_0")
    return tmp_path / "version_0"


def link(run, name):
    """The file or folder is elsewhere, and a link to it in its place."""
    path, elsewhere = run / name, run.parent / "elsewhere"
    path.parent.mkdir(exist_ok=True)
    if path.exists():
        path.rename(elsewhere)
    elif "." in path.name:
        elsewhere.write_text("of the user\n" * 1000)
    else:
        elsewhere.mkdir()
        (elsewhere / "README.md").write_text("of the user")
    path.symlink_to(elsewhere)
    return path, elsewhere


def content(path):
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in files if file.is_file()}


@pytest.mark.parametrize("name", LINKED)
def test_a_run_with_a_link_does_not_go_on_and_is_not_changed(name, run, capsys):
    newest = checkpoints(run)[1]
    path, elsewhere = link(run, name)
    before = content(elsewhere)

    logger = TensorBoardLogger(run.parent, name="", version=run.name)
    with pytest.raises(EditError, match=f"{path} is a link"):
        fit(run.parent, module(), TinyWorld(edits=6), ckpt_path=newest, logger=logger)
    for action in (
        lambda folder: open_updates(folder, UpdateList),
        lambda folder: change_updates(folder, "remove", [3]),
    ):
        with pytest.raises(EditError, match=f"{path} is a link"):
            action(run)
    assert content(elsewhere) == before
    assert path.is_symlink()


@pytest.mark.parametrize("name", ["curves.jsonl", "updates/update-00002.safetensors", "checkpoints/opened.json"])
def test_a_run_with_a_pipe_among_its_files_is_not_waited_for(name, run):
    (run / name).unlink(missing_ok=True)
    os.mkfifo(run / name)
    with pytest.raises(EditError, match=f"{run / name} is neither a file nor a folder"):
        open_updates(run, UpdateList)
    logger = TensorBoardLogger(run.parent, name="", version=run.name)
    with pytest.raises(EditError, match=f"{run / name} is neither a file nor a folder"):
        fit(run.parent, module(), TinyWorld(edits=6), ckpt_path=checkpoints(run)[1], logger=logger)


@pytest.mark.parametrize("name", ["edited.ckpt", "checkpoints", "checkpoints/update-000003.ckpt"])
@pytest.mark.slow
def test_a_checkpoint_that_is_a_link_is_not_measured(name, run, capsys):
    path, _ = link(run, name)
    given = checkpoints(run)[0] if name == "checkpoints" else path
    with pytest.raises(SystemExit) as status:
        cli.main(["test", "--ckpt_path", str(given), "--trainer.logger", "false"])
    assert status.value.code == 2
    assert f"{path} is a link" in capsys.readouterr().err.replace("\n", "")


def test_the_folder_of_a_run_may_be_reached_through_a_link(run):
    (run.parent / "runs").symlink_to(run.parent)
    assert open_updates(run.parent / "runs" / "version_0", UpdateList).numbers() == [1, 2, 3]


def test_a_new_run_does_not_begin_where_a_link_leads_elsewhere(tmp_path):

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "curves.jsonl").symlink_to(tmp_path / "nowhere")
    with pytest.raises(EditError, match=r"curves\.jsonl"):
        fit(tmp_path, module(), TinyWorld(edits=2), logger=TensorBoardLogger(tmp_path, name="", version="mine"))
    assert not (tmp_path / "nowhere").exists()


def test_another_name_of_a_log_keeps_its_content(tmp_path):
    (tmp_path / "curves.jsonl").write_text("12345678")
    os.link(tmp_path / "curves.jsonl", tmp_path / "snapshot")
    cut_back(tmp_path, {"curves.jsonl": 4}, ["curves.jsonl"])
    assert (tmp_path / "curves.jsonl").read_text() == "1234"
    assert (tmp_path / "snapshot").read_text() == "12345678"


def test_a_cache_neither_uses_nor_deletes_links(tmp_path, caplog):
    cache, name = Cache(tmp_path / "cache"), "0" * 32
    cache.write("values", name, {"z": make_factors(3, 3, 1, 0).left}, {})
    path = cache.path("values", name)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "folder").mkdir()
    leftover = tmp_path / "cache" / f".{path.name}.abc"
    leftover.symlink_to(tmp_path / "folder")
    assert cache.read("values", name) is None
    assert "it is a link" in caplog.text
    assert (cache.entries(), cache.leftovers()) == ([], [])
    assert set(cache.foreign()) == {path, leftover}
    before = (tmp_path / "elsewhere").read_bytes()
    cache.write("values", name, {"z": make_factors(3, 3, 1, 5).left}, {})
    assert cache.read("values", name) is not None
    assert (tmp_path / "elsewhere").read_bytes() == before


def test_a_cache_does_not_wait_for_a_pipe(tmp_path, caplog):
    cache, name = Cache(tmp_path), "0" * 32
    os.mkfifo(cache.path("values", name))
    assert cache.read("values", name) is None
    assert "it is no file" in caplog.text
    assert (cache.entries(), cache.foreign()) == ([], [cache.path("values", name)])
