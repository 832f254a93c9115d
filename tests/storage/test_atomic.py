"""Files and folders appear whole or not at all."""

import pytest

from lightning_edit.storage.atomic import atomic_path


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
