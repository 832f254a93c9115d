"""A process that fails stops the others, within seconds and with one message; none is left behind."""

import os
import signal

import pytest
from lightning.pytorch import Trainer

from lightning_edit.distributed.shutdown import GRACE_VARIABLE, LOST
from lightning_edit.errors import EditError
from lightning_edit.run.trainer_check import check_strategy_name, check_trainer
from tests.killing import Command

SMALL = {"data.edits": 4, "data.batch_size": 2, "model.values.steps": 2, "model.second_moment.tokens": 2000}
SMALL |= {"model.solver.ridge": 0.01, "collateral.prompts": 0}
BROKEN = "the seventh seal is broken"
OWN = ("--trainer.devices=2", "--trainer.strategy=ddp")


def start(folder, processes, *args, environments=None, **failure):
    given = ["fit", *(f"--{name}={value}" for name, value in SMALL.items()), f"--trainer.logger.save_dir={folder}"]
    given += [f"--model.second_moment.cache_dir={folder / 'cache'}"]
    return Command([*given, *args, *(fail(**failure) if failure else ())], folder / "log", processes, environments)


def fail(**settings):
    options = [f"--trainer.callbacks.{name}={value}" for name, value in settings.items()]
    return ["--trainer.callbacks+=tests.process_callbacks.Fail", *options]


def left(command):
    """Whether anything that the command has started still runs."""
    found = []
    for process in command.processes:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            continue
        found.append(process.pid)
    return found


@pytest.mark.parametrize(
    ("processes", "failure", "statuses"),
    [
        # in the middle of finding values
        pytest.param(3, {"moment": "train", "rank": 1}, [2, 2, 2], marks=pytest.mark.slow),
        pytest.param(2, {"moment": "test", "rank": 0}, [2, 2], marks=pytest.mark.slow),  # of an evaluation
        (2, {"moment": "test", "rank": 1, "how": "RuntimeError"}, [2, 1]),  # what is no user's mistake has a traceback
    ],
)
@pytest.mark.slow
def test_others_say_what_the_one_that_failed_in_shared_work_said(processes, failure, statuses, tmp_path):
    command = start(tmp_path, processes, **failure)
    assert command.wait(200) == statuses, command.output
    kind = failure.get("how", "EditError")
    told = f"error: Process {failure['rank']} failed, so this one stops too. It said: {kind}: {BROKEN}"
    assert command.output.count(told) == processes - 1
    assert command.output.count(f"error: {BROKEN}") == (kind == "EditError")
    assert command.output.count("Traceback") == (kind != "EditError")
    assert not left(command)


@pytest.mark.parametrize(
    ("processes", "failure", "statuses"),
    [
        (2, {"moment": "kept", "rank": 0, "in_pass": False}, [2, 2]),  # outside of shared work, with a message
        pytest.param(3, {"moment": "train", "rank": 2, "how": "kill"}, [2, 2, -signal.SIGKILL], marks=pytest.mark.slow),
        pytest.param(2, {"moment": "test", "rank": 0, "how": "kill"}, [-signal.SIGKILL, 2], marks=pytest.mark.slow),
    ],
)
@pytest.mark.slow
def test_others_do_not_wait_for_one_that_is_gone(processes, failure, statuses, tmp_path):
    command = start(tmp_path, processes, **failure)
    assert command.wait(200) == statuses, command.output
    assert command.output.count(f"error: {LOST}") == processes - 1
    assert command.output.count(f"error: {BROKEN}") == ("how" not in failure)
    assert "Traceback" not in command.output
    assert not left(command)


@pytest.mark.slow
def test_a_wrong_setting_is_refused_by_all(tmp_path):
    command = start(tmp_path, 2, "--model.layers=[9]")
    assert command.wait(200) == [2, 2], command.output
    assert command.output.count("error: `layers` must be different numbers") == 2
    assert "Traceback" not in command.output


@pytest.mark.slow
def test_processes_that_lightning_started_say_what_is_wrong(tmp_path):
    command = start(tmp_path, 1, *OWN, moment="train", rank=1)
    assert command.wait(120) == [2], command.output
    told = f"error: Process 1 failed, so this one stops too. It said: EditError: {BROKEN}"
    assert told in command.output, command.output
    # Wherever it begins: the line of a progress bar may be open.
    assert command.output.count(f"error: {BROKEN}") == 1, command.output
    assert not left(command)


@pytest.mark.slow
def test_one_that_lightning_started_ends_with_the_first_even_if_it_hangs(tmp_path):
    hang = fail(moment="train", rank=1, how="hang", in_pass=False)
    soon = [{GRACE_VARIABLE: "1"}]
    command = start(tmp_path, 1, *OWN, *hang, environments=soon, moment="train", rank=0, in_pass=False)
    assert command.wait(120) == [2], command.output
    assert f"error: {BROKEN}" in command.output
    assert not left(command)


@pytest.mark.slow
def test_the_first_ends_when_one_that_it_started_is_killed(tmp_path):
    command = start(tmp_path, 1, *OWN, moment="train", rank=1, how="kill")
    (status,) = command.wait(120)
    # Whoever notices first: this process when it next needs the other, or Lightning, which looks every five seconds.
    assert status in (2, -signal.SIGKILL), command.output
    assert LOST in command.output or "terminated with code -9" in command.output
    assert "Traceback" not in command.output
    assert not left(command)


@pytest.mark.slow
def test_ddp_with_a_single_device_is_a_run_like_any_other(tmp_path):
    command = start(tmp_path, 1, "--trainer.strategy=ddp", "--trainer.accelerator=cpu")
    assert command.wait(200) == [0], command.output


@pytest.mark.parametrize("name", ["dpd", "deepspeed"])
def test_a_strategy_that_is_none_or_cannot_edit_is_refused_by_name(name):
    with pytest.raises(EditError, match=f"auto, ddp .* or ModelParallelStrategy .* got {name}"):
        check_strategy_name(name)


def test_processes_that_are_spawned_are_refused():
    with pytest.raises(EditError, match="got DDPStrategy of forked or spawned processes"):
        check_trainer(Trainer(accelerator="cpu", devices=2, strategy="ddp_spawn", max_epochs=1, logger=False), True)
