"""One process at a time works on a run."""

import gc
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_edit import EditError
from lightning_edit.datamodules import TinyWorld
from lightning_edit.run.edit_callback import EditCallback
from lightning_edit.storage.checkpoints.checkpoint_file import checkpoints
from lightning_edit.storage.run_lock import RunLock
from lightning_edit.updates.undo import change_updates
from tests.small_runs import fit, module

HOLD = """
import sys, time
from pathlib import Path
from lightning_edit.storage.run_lock import RunLock
lock = RunLock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def hold():
    """Starts another process that works on a run."""
    started = []

    def start(folder):
        started.append(subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE))
        assert started[-1].stdout.readline() == b"held\n"
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_run_that_another_process_works_on_is_refused_and_one_whose_process_died_is_not(hold, tmp_path):
    process = hold(tmp_path)
    with pytest.raises(EditError, match=f"in use: process {process.pid} on {socket.gethostname()}"):
        RunLock(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    lock = RunLock(tmp_path)
    assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
    lock.release()
    assert list(tmp_path.iterdir()) == []


def others(folder):
    """What another process is told that wants the lock; nothing if it gets it."""
    got = [sys.executable, "-c", HOLD.replace("time.sleep(600)", ""), str(folder)]
    return subprocess.run(got, capture_output=True, text=True, check=False).stderr


def test_a_process_holds_the_lock_as_long_as_any_part_of_it_does(tmp_path, monkeypatch):
    first = RunLock(tmp_path)
    monkeypatch.chdir(tmp_path)
    second = RunLock(Path())
    first.release()
    first.release()
    assert "in use" in others(tmp_path)
    third = RunLock(tmp_path)
    del second
    gc.collect()
    assert "in use" in others(tmp_path)
    third.release()
    assert not others(tmp_path)


def test_a_lock_that_is_gone_without_release_holds_nobody_up(tmp_path):
    lock = RunLock(tmp_path)
    del lock
    gc.collect()
    again = RunLock(tmp_path)
    assert "in use" in others(tmp_path)
    again.release()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_does_not_have_the_lock_of_its_parent(tmp_path):
    lock = RunLock(tmp_path)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            lock.release()
            RunLock(tmp_path)
        except EditError:
            status = 0
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert "in use" in others(tmp_path)
    lock.release()
    assert not others(tmp_path)


def test_a_lock_whose_file_was_taken_away_is_taken_anew(tmp_path):
    lost = RunLock(tmp_path)
    (tmp_path / ".lock").unlink()
    lock = RunLock(tmp_path)
    assert "in use" in others(tmp_path)
    lost.release()
    assert "in use" in others(tmp_path)
    lock.release()
    assert list(tmp_path.iterdir()) == []


def test_what_a_process_of_another_machine_left_is_told(tmp_path, caplog):
    (tmp_path / ".lock").write_text(json.dumps({"pid": 1, "host": "node-17", "token": "another"}))
    RunLock(tmp_path).release()
    assert "Process 1 on node-17" in caplog.text
    assert "make sure that it has" in caplog.text


@pytest.mark.parametrize("alive", [True, False])
def test_a_disk_that_keeps_no_locks_is_told(alive, tmp_path, monkeypatch, caplog):
    def unsupported(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", unsupported)
    pid = os.getppid() if alive else 2**22 + 1
    (tmp_path / ".lock").write_text(json.dumps({"pid": pid, "host": socket.gethostname(), "token": "another"}))
    if alive:
        with pytest.raises(EditError, match="in use"):
            RunLock(tmp_path)
    else:
        RunLock(tmp_path).release()
        assert "has no locks" in caplog.text


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"pid": "x", "host": 7}', "[" * 9000])
def test_a_damaged_note_stops_nobody(content, tmp_path):
    (tmp_path / ".lock").write_text(content)
    lock = RunLock(tmp_path)
    assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
    lock.release()
    assert not (tmp_path / ".lock").exists()


class Look(EditCallback):
    """Whether the run is locked while it goes."""

    def on_update_kept(self, trainer, pl_module):
        place = Path(trainer.logger.log_dir)
        command = [sys.executable, "-c", HOLD, str(place)]
        self.refused = subprocess.run(command, capture_output=True, text=True, check=False).stderr


def test_a_fit_holds_the_lock_from_its_beginning_to_its_end(hold, tmp_path):
    look = Look()
    folder = fit(tmp_path, module(), TinyWorld(edits=4), look)
    assert f"in use: process {os.getpid()}" in look.refused
    assert not (folder / ".lock").exists()
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    process = hold(folder)
    logger = TensorBoardLogger(tmp_path, name="", version=folder.name)
    with pytest.raises(EditError, match=f"in use: process {process.pid}"):
        fit(tmp_path, module(), TinyWorld(edits=4), ckpt_path=checkpoints(folder)[1], logger=logger)
    with pytest.raises(EditError, match=f"in use: process {process.pid}"):
        change_updates(folder, "remove", [2])
    assert {path: path.read_bytes() for path in files} == files
