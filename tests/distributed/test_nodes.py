"""Several nodes, here on one machine: torchrun and SLURM start a run, which ends like that of one process."""

import json
import os
import re
import subprocess
import sys

import pytest
import torch

from tests.conftest import ROOT
from tests.killing import Command, free_port

# The title of the table of figures stands on a line of its own.
TITLE = re.compile(r"^\s*5 edits\s*$", re.MULTILINE)

pytestmark = pytest.mark.slow

NODES = ("--trainer.num_nodes=2", "--trainer.devices=1", "--trainer.strategy=ddp")
SETTINGS = {
    "data.edits": 5,
    "data.batch_size": 3,
    "model.dtype": "float64",
    "model.solver.ridge": 0.01,
    "model.values.steps": 2,
    "model.second_moment.tokens": 2000,
    "trainer.accelerator": "cpu",
}


def arguments(folder, *more):
    return [
        "fit",
        *(f"--{name}={value}" for name, value in SETTINGS.items()),
        f"--trainer.logger.save_dir={folder}",
        f"--model.second_moment.cache_dir={folder.parent / 'cache' / folder.name}",
        *more,
    ]


def result(folder):
    run = folder / "version_0"
    assert [path.name for path in folder.iterdir()] == ["version_0"]
    weights = torch.load(run / "edited.ckpt", weights_only=True)["state_dict"]
    return weights, json.loads((run / "metrics.json").read_text())


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    command = Command(arguments(folder / "runs"), folder / "log")
    assert command.wait() == [0], command.output
    return result(folder / "runs")


def assert_ends_like(one, found):
    (expected, figures), (weights, of_nodes) = one, found
    assert of_nodes["edits"] == figures["edits"] == 5
    assert of_nodes["after"] == pytest.approx(figures["after"], rel=1e-9, abs=1e-9, nan_ok=True)
    assert weights.keys() == expected.keys()
    for name in expected:
        assert float((weights[name] - expected[name]).norm() / expected[name].norm()) < 1e-10


def test_two_nodes_that_torchrun_starts(one, tmp_path):
    port, environment = free_port(), {**os.environ, "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1"]
    torchrun += ["--master_addr=127.0.0.1", f"--master_port={port}"]
    command = [str(ROOT / "cli.py"), *arguments(tmp_path / "runs", *NODES)]
    with (tmp_path / "log").open("w") as log:
        nodes = [
            subprocess.Popen([*torchrun, f"--node_rank={rank}", *command], stdout=log, stderr=log, env=environment)
            for rank in range(2)
        ]
        try:
            statuses = [node.wait(300) for node in nodes]
        finally:
            for node in nodes:
                node.kill()
    shown = (tmp_path / "log").read_text()
    assert statuses == [0, 0], shown
    assert len(TITLE.findall(shown)) == 1
    assert_ends_like(one, result(tmp_path / "runs"))


def test_two_nodes_that_slurm_starts(one, tmp_path):
    # What srun tells each task of a job of two nodes; the rest is Lightning's.
    job = {"SLURM_JOB_ID": free_port(), "SLURM_JOB_NAME": "edit", "SLURM_NODELIST": "127.0.0.1"}
    job |= {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "1", "SLURM_NNODES": "2", "SLURM_LOCALID": "0"}
    tasks = [job | {"SLURM_PROCID": rank, "SLURM_NODEID": rank, "MASTER_PORT": job["SLURM_JOB_ID"]} for rank in "01"]
    command = Command(arguments(tmp_path / "runs", *NODES), tmp_path / "log", environments=tasks)
    assert command.wait(300) == [0, 0], command.output
    assert len(TITLE.findall(command.output)) == 1
    assert_ends_like(one, result(tmp_path / "runs"))
