"""Files and folders appear whole or not at all."""

import os
import resource

import pytest
import torch
from safetensors.torch import save_file

from lightning_edit.storage.atomic import atomic_path
from lightning_edit.storage.run_files import clear_killed_writers


def write(path, text, folder):
    if folder:
        path.mkdir()
        path = path / "file"
    path.write_text(text)


def read(path):
    return {str(file.relative_to(path.parent)): file.read_text() for file in path.parent.rglob("*") if file.is_file()}


@pytest.mark.parametrize("folder", [False, True])
def test_what_was_made_takes_its_place(tmp_path, folder):
    path = tmp_path / "deep" / "result"
    with atomic_path(path) as scratch:
        write(scratch, "new", folder)
        assert not path.exists()
    assert read(path) == {"result/file" if folder else "result": "new"}


@pytest.mark.parametrize("folder", [False, True])
def test_an_older_one_is_replaced_and_nothing_else_is_left(tmp_path, folder):
    path = tmp_path / "result"
    write(path, "old", folder)
    if folder:
        (path / "stale").write_text("of the old folder")
    with atomic_path(path) as scratch:
        write(scratch, "new", folder)
    assert read(path) == {"result/file" if folder else "result": "new"}
    assert [file.name for file in tmp_path.iterdir()] == ["result"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("folder", [False, True])
def test_the_old_one_stays_if_making_the_new_one_fails(tmp_path, folder, error):
    path = tmp_path / "result"
    write(path, "old", folder)
    with pytest.raises(error), atomic_path(path) as scratch:
        write(scratch, "half of the new", folder)
        raise error
    assert read(path) == {"result/file" if folder else "result": "old"}
    assert [file.name for file in tmp_path.iterdir()] == ["result"]


def test_a_failure_without_an_old_one_leaves_nothing(tmp_path):
    with pytest.raises(OSError, match="disk"), atomic_path(tmp_path / "result") as scratch:
        scratch.write_text("half")
        raise OSError("disk")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_replaced_by_a_folder(tmp_path):
    path = tmp_path / "result"
    path.write_text("old")
    with atomic_path(path) as scratch:
        write(scratch, "new", folder=True)
    assert read(path) == {"result/file": "new"}


def test_a_folder_survives_where_a_file_cannot_replace_it(tmp_path):
    path = tmp_path / "result"
    write(path, "old", folder=True)
    with pytest.raises(OSError), atomic_path(path) as scratch:
        scratch.write_text("new")
    assert read(path) == {"result/file": "old"}
    assert [file.name for file in tmp_path.iterdir()] == ["result"]


@pytest.fixture
def full_disk():
    """Files of more than 1000 bytes cannot be written, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


WRITERS = {
    "safetensors": lambda path: save_file({"w": torch.zeros(1000)}, path),
    "torch": lambda path: torch.save(torch.zeros(1000), path),
    "text": lambda path: path.write_text("x" * 4000),
}


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
def test_a_full_disk_is_one_kind_of_error_and_names_the_file(writer, full_disk, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_text("old")
    with pytest.raises(OSError, match=r"model\.safetensors"), atomic_path(path) as scratch:
        writer(scratch)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
@pytest.mark.parametrize("folder", [False, True])
def test_weights_have_the_permissions_of_any_new_file(tmp_path, umask, mode, folder):
    before = os.umask(umask)
    try:
        with atomic_path(tmp_path / "made.safetensors") as scratch:
            if folder:
                scratch.mkdir()
            save_file({"w": torch.zeros(3)}, scratch / "model.safetensors" if folder else scratch)
    finally:
        os.umask(before)
    file = tmp_path / "made.safetensors" / "model.safetensors" if folder else tmp_path / "made.safetensors"
    assert file.stat().st_mode & 0o777 == mode
    assert {path.name for path in tmp_path.rglob("*")} <= {"made.safetensors", "model.safetensors"}


def test_what_killed_writers_left_is_deleted_and_nothing_else(tmp_path):
    left = [".model.abcd1234", "updates/.update-00012.safetensors.k2_sk2lx", "checkpoints/.update-000003.ckpt.abcd1234"]
    left += [f"checkpoints/values/.values-{'0' * 32}.safetensors.abcd1234", ".metrics.json.abcd1234"]
    kept = [".model.backup-of-mine", ".git.abcd1234", "model", "updates/.update-best.safetensors.abcd1234"]
    for name in (*left, *kept):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / left[0] / "model").mkdir()
    (tmp_path / left[0] / "model" / "half").write_text("half")
    mine = tmp_path / ".config.yaml.mine1234"
    mine.mkdir()
    (mine / "notes").write_text("mine")
    clear_killed_writers(tmp_path)
    assert not any((tmp_path / name).exists() for name in left)
    assert all((tmp_path / name).exists() for name in kept)
    assert (mine / "notes").read_text() == "mine"


@pytest.mark.parametrize("new", [True, False])
def test_a_folder_that_was_being_replaced_is_there_again(tmp_path, new):
    scratch = tmp_path / ".model.abcd1234"
    (scratch / "old").mkdir(parents=True)
    (scratch / "old" / "file").write_text("old")
    if new:
        (scratch / "model").mkdir()
        (scratch / "model" / "file").write_text("new")
    clear_killed_writers(tmp_path)
    assert (tmp_path / "model" / "file").read_text() == ("new" if new else "old")
    assert not scratch.exists()
