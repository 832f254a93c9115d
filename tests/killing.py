"""Runs of the real command line in processes of their own, that can be killed and compared."""

import atexit
import importlib
import json
import multiprocessing
import os
import signal
import socket
import sys
from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import ROOT

# Imports are most of what a short run takes; a process forked from this one has them already.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        *(
            "lightning_edit.cli.fit",
            "torch.distributed.checkpoint",
            "torch.distributed.fsdp",
            "torch.utils.tensorboard",
        ),
        *("transformers.models.gpt2.modeling_gpt2", "transformers.integrations.gguf"),
    ]
)
# What a clock says is different in every run.
TIMES = ("seconds", "per_second", "to_go", "when")
# Where a process may kill itself, by name: the function during which it happens.
PHASES = {
    "start": "lightning_edit.run.module:EditingModule.on_fit_start",
    "values": "lightning_edit.values.search:Values.join",
    "solve": "lightning_edit.updates.edited_weights:EditedWeights.add",
    "update file": "lightning_edit.updates.history:History.write",
    "checkpoint": "lightning.pytorch:Trainer.save_checkpoint",
    "evaluation": "lightning_edit.run.measuring:Measuring.on_test_epoch_end",
    "survival": "lightning_edit.survival.results:SurvivalFile.add",
    "rename": "pathlib:Path.replace",
}
KILL = "TEST_KILL_AT"


def _command(args, log, environment):
    os.setsid()
    # What runs in the background of a script is born deaf to Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with Path(log).open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ |= environment
    torch.set_num_threads(1)
    from lightning_edit.cli import main as cli

    if KILL in os.environ:
        _kill_at(*os.environ[KILL].split(":"))
    sys.argv = [str(ROOT / "cli.py"), *args]
    try:
        cli.main(args)
    finally:
        # A process that was forked would leave without.
        atexit._run_exitfuncs()


def _kill_at(phase, call, when):
    """Makes this process kill itself before or after the given call of a phase's function."""
    module, _, path = PHASES[phase].partition(":")
    owner, _, name = path.partition(".")
    owner = getattr(importlib.import_module(module), owner)
    original, calls = getattr(owner, name), []

    def counted(*args, **settings):
        calls.append(None)
        if (len(calls), when) == (int(call), "before"):
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **settings)
        if (len(calls), when) == (int(call), "after"):
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    static = isinstance(vars(owner)[name], staticmethod)
    setattr(owner, name, staticmethod(counted) if static else counted)


def _environments(processes):
    """What a launcher tells the processes that it starts on one machine."""
    shared = {"NODE_RANK": "0", "WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    return [{"LOCAL_RANK": str(rank), **shared} for rank in range(processes)]


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


class Command:
    """The command line at work, in one process or several; each has a process group of its own.

    With `environments`, one process each, it is left to the arguments to name a strategy.
    """

    def __init__(self, args, log, processes=1, environments=None, kill=None):
        args = [str(arg) for arg in args]
        if environments is None and processes > 1:
            environments = _environments(processes)
            args += ["--trainer.devices", str(processes), "--trainer.strategy", "ddp"]
        if kill is not None:
            # Of several processes the last one kills itself; the others are to end by themselves.
            environments = [*environments[:-1], {**environments[-1], KILL: kill}] if environments else [{KILL: kill}]
        self.log = Path(log)
        self.log.touch()
        self._began = self.log.stat().st_size
        self.processes = [
            CONTEXT.Process(target=_command, args=(args, str(log), environment)) for environment in environments or [{}]
        ]
        for process in self.processes:
            process.start()

    def wait(self, seconds=None):
        """Exit statuses; None for a process that still runs."""
        for process in self.processes:
            process.join(seconds)
        return [process.exitcode for process in self.processes]

    def send(self, number):
        """A signal to all processes."""
        for process in self.processes:
            if process.is_alive():
                os.kill(process.pid, number)

    def kill(self):
        """SIGKILL: nothing is told of it."""
        self.send(signal.SIGKILL)
        self.wait()

    @property
    def output(self):
        """What was printed."""
        return self.log.read_bytes()[self._began :].decode()


def _timeless(value):
    if isinstance(value, dict):
        return {name: _timeless(entry) for name, entry in value.items() if not any(time in name for time in TIMES)}
    return [_timeless(entry) for entry in value] if isinstance(value, list) else value


def scalars(folder):
    """All that TensorBoard would draw, by tag: pairs of step and value, in the order in which they were told."""
    found = {}
    for path in sorted(folder.glob("events.*"), key=lambda path: (path.name.split(".")[3], path.name)):
        events = EventAccumulator(str(path)).Reload()
        for tag in events.Tags()["scalars"]:
            if not any(time in tag for time in TIMES):
                found.setdefault(tag, []).extend((event.step, event.value) for event in events.Scalars(tag))
    return found


def outcome(folder):
    """What a run leaves, apart from what clocks say: weights, metrics and logs."""
    checkpoint = torch.load(folder / "edited.ckpt", weights_only=True)
    metrics = _timeless(json.loads((folder / "metrics.json").read_text()))
    lines = {name: (folder / name).read_text().splitlines() for name in ("records.jsonl", "curves.jsonl")}
    return {
        "weights": {name: tensor.numpy().tobytes() for name, tensor in checkpoint["state_dict"].items()},
        "earlier keys": {
            layer: [part.numpy().tobytes() for part in (*keys["recent"], keys["moment"]) if part is not None]
            for layer, keys in checkpoint["run"]["previous_keys"].items()
        },
        "before": metrics["before"],
        "after": metrics["after"],
        "edits": (metrics["edits"], metrics["left_out"]),
        "lines": {name: [_timeless(json.loads(line)) for line in content] for name, content in lines.items()},
        "scalars": scalars(folder),
        "updates": sorted(path.name for path in (folder / "updates").glob("update-*")),
    }
