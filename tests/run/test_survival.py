"""A run that is killed again and again ends like one that was left alone."""

import re
import shlex
import signal
import time

import pytest

from lightning_edit.storage.checkpoints.checkpoint_file import checkpoints
from tests.killing import Command, outcome

UPDATES = 10
# Micro-batches of 3 and updates of 2 do not fit into each other, so checkpoints fall into the middle of micro-batches.
SETTINGS = {
    "data.edits": 2 * UPDATES,
    "data.batch_size": 3,
    "model.edits_per_update": 2,
    "model.layers": "[0,1]",
    "model.previous_keys": "true",
    "model.solver.ridge": 0.01,
    "model.values.steps": 3,
    "model.second_moment.tokens": 2000,
    "retention.every_n_updates": 3,
    "watch.sample": 4,
}


def arguments(folder, **changes):
    settings = SETTINGS | {"model.second_moment.cache_dir": folder / "cache"} | changes
    return [f"--{name}={value}" for name, value in settings.items()]


def start(folder, run, processes=1, **changes):
    given = ["fit", *arguments(folder, **changes), "--trainer.logger.save_dir", folder / run]
    return Command(given, folder / f"{run}.log", processes)


def go_on(folder, run, processes=1, kill=None):
    given = ["fit", "--ckpt_path", "last", "--trust_config", "--trainer.logger.save_dir", folder / run]
    return Command(given, folder / f"{run}.log", processes, kill=kill)


def until(condition, command, seconds=120):
    """Waits until something is so while a command runs."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, command.output
        assert None in command.wait(0), command.output
        time.sleep(0.02)


# Each is a moment at which a run is killed, and goes on from there to the next one: one of each phase, and the others.
PHASES = ["start:1:after", "values:2:after", "solve:3:after", "update file:2:before", "checkpoint:2:before"]
PHASES += ["evaluation:1:before"]
MOMENTS = ["update file:1:after", "values:1:after", "checkpoint:2:after"]
SEVERAL = ["values:3:after", "solve:5:before", "checkpoint:2:after"]


@pytest.mark.parametrize(
    ("processes", "moments"),
    [
        pytest.param(1, PHASES, id="phases", marks=pytest.mark.slow),
        pytest.param(1, MOMENTS, id="moments", marks=pytest.mark.slow),
        pytest.param(2, SEVERAL, id="processes", marks=pytest.mark.slow),
    ],
)
def test_a_run_killed_at_every_phase_ends_like_one_left_alone(processes, moments, tmp_path):
    alone, killed = tmp_path / "alone" / "version_0", tmp_path / "killed" / "version_0"
    command = start(tmp_path, "alone", processes)
    assert command.wait() == [0] * processes, command.output

    command = start(tmp_path, "killed", processes)
    until(lambda: checkpoints(killed), command)
    command.kill()
    for moment in moments:
        command = go_on(tmp_path, "killed", processes, kill=moment)
        assert command.wait()[-1] == -signal.SIGKILL, (moment, command.output)
    command = go_on(tmp_path, "killed", processes)
    assert command.wait() == [0] * processes, command.output

    expected, found = outcome(alone), outcome(killed)
    assert found.keys() == expected.keys()
    for part in expected:
        assert found[part] == expected[part], part


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_asked_to_stop_says_how_to_go_on_and_does(number, tmp_path):
    run = tmp_path / "asked" / "version_0"
    command = start(tmp_path, "asked")
    until(lambda: len(checkpoints(run)) > 1, command)
    command.send(number)
    assert command.wait() == [143 if number == signal.SIGTERM else 1]
    newest = checkpoints(run)[0]
    said = re.search(rf"of {2 * UPDATES} edits are kept\. To resume: (fit --ckpt_path .*)", command.output)
    # The cache of second moments lies outside of the run, and a fit may not write there because a file says so.
    assert said is not None
    assert shlex.split(said[1]) == ["fit", "--ckpt_path", str(newest), "--trust_config"]
    assert "Traceback" not in command.output
    again = Command(shlex.split(said[1]), tmp_path / "again.log")
    assert again.wait() == [0], again.output
    assert f"{2 * UPDATES} edits" in again.output
    assert not (tmp_path / "asked" / "version_1").exists()


@pytest.mark.slow
def test_several_ctrl_c_at_once_keep_what_one_keeps(tmp_path):
    run = tmp_path / "asked" / "version_0"
    command = start(tmp_path, "asked")
    until(lambda: len(checkpoints(run)) > 1, command)
    for pause in (0.02, 0.03, 0.0, 0.2, 0.0):
        command.send(signal.SIGINT)
        time.sleep(pause)
    assert command.wait() == [1]
    assert f"of {2 * UPDATES} edits are kept. To resume: fit --ckpt_path {checkpoints(run)[0]}" in command.output
    assert "Traceback" not in command.output


@pytest.mark.slow
def test_independent_updates_go_on_as_well(tmp_path):
    changes = {"model.independent_updates": "true", "model.previous_keys": "null", "retention.every_n_updates": "null"}
    changes |= {"data.edits": 9, "data.batch_size": 5}
    assert start(tmp_path, "alone", **changes).wait() == [0]
    run = tmp_path / "killed" / "version_0"
    command = start(tmp_path, "killed", **changes)
    until(lambda: (run / "updates" / "update-00002.safetensors").exists(), command)
    command.kill()
    again = go_on(tmp_path, "killed")
    assert again.wait() == [0], again.output
    expected, found = (folder / "version_0" for folder in (tmp_path / "alone", tmp_path / "killed"))
    assert (found / "records.jsonl").read_text() == (expected / "records.jsonl").read_text()
