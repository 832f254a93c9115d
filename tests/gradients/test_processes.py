"""Runs with a source in two processes, which share the edits or the weights, end like those in one process."""

import json

import pytest
import torch

from lightning_edit.datamodules import TinyWorld
from tests.killing import Command, free_port

pytestmark = pytest.mark.slow

STRATEGIES = {"one": None, "shared edits": "ddp", "divided weights": "ModelParallelStrategy"}
GRADIENT = {
    "model.source": "Gradient",
    "model.source.maps": '["mlp.*"]',
    "model.source.eta": 1e-3,
    "model.source.normalize": "whitened",
    "model.source.warmup": 4,
    "model.solver": "Ridge",
    "model.solver.ridge": 1.0,
}
WINDOWS = {
    "model.source": "Windows",
    "model.source.window": 6,
    "model.solver": "MEMIT",
    "model.solver.ridge": 0.01,
    "model.values.steps": 3,
    "data": "OwnEdits",
}
SOURCES = {"Gradient": GRADIENT, "Windows": WINDOWS}


def long_answers(folder):
    """Edits without subjects whose answers go on with what others say."""
    facts = TinyWorld(edits=7).requests
    said = [f"{fact.rewrite_prompt} {fact.target_new}." for fact in facts]
    path = folder / "long.json"
    texts = [
        {"case_id": i, "prompt": fact.rewrite_prompt, "target_new": f"{fact.target_new}. {said[i - 1]} {said[i - 2]}"}
        for i, fact in enumerate(facts)
    ]
    path.write_text(json.dumps(texts))
    return path


def start(folder, name, kind, strategy):
    settings = {
        "model.dtype": "float64",
        "model.layers": "[0,1]",
        "model.edits_per_update": 3,
        "model.previous_keys": "true",
        "model.second_moment.tokens": 2000,
        "model.evaluation.generated_match": "false",
        "collateral.prompts": 0,
        "data.batch_size": 4,
        **SOURCES[kind],
        "trainer.logger.save_dir": folder / name,
        "model.second_moment.cache_dir": folder / f"{name} cache",
    }
    settings |= {"data.edits": 7} if kind == "Gradient" else {"data.path": long_answers(folder)}
    # A class is named before its settings.
    named = sorted(settings, key=lambda key: (key != "data", key not in ("model.source", "model.solver")))
    given = ["fit", *(f"--{key}={settings[key]}" for key in named)]
    ranks = None
    if strategy is not None:
        given += ["--trainer.devices=2", "--trainer.accelerator=cpu", f"--trainer.strategy={strategy}"]
        shared = {"WORLD_SIZE": "2", "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
        ranks = [{"LOCAL_RANK": str(rank), **shared} for rank in range(2)]
    return Command(given, folder / f"{name}.log", environments=ranks)


@pytest.mark.parametrize("kind", SOURCES)
def test_two_processes_end_like_one(kind, tmp_path):
    found = {}
    for name, strategy in STRATEGIES.items():
        command = start(tmp_path, name, kind, strategy)
        assert command.wait(300) == [0] * (1 if strategy is None else 2), command.output
        run = tmp_path / name / "version_0"
        content = torch.load(run / "edited.ckpt", weights_only=True)
        assert content["run"]["edits_written"] == 7 and content["run"]["updates_written"] == 3
        figures = json.loads((run / "metrics.json").read_text())
        found[name] = content["state_dict"], content["run"], figures["after"]
    weights, run, figures = found.pop("one")
    for others, other_run, after in found.values():
        assert others.keys() == weights.keys()
        for name, weight in weights.items():
            assert float((others[name] - weight).norm() / weight.norm()) < 1e-10
        for shape, seen in run["statistics"].items():
            assert other_run["statistics"][shape]["tokens"] == seen["tokens"]
            torch.testing.assert_close(other_run["statistics"][shape]["products"], seen["products"], rtol=1e-8, atol=0)
        assert after == pytest.approx(figures, rel=1e-8, nan_ok=True)
