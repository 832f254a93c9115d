"""What has no effect beside other settings is neither compared, nor shown on the card of what is exported."""

import json
import shutil
from pathlib import Path

import pytest

from lightning_edit import EMMET, MEMIT, AlphaEdit, Gradient, Ridge, SecondMomentSettings, Sum, ValueSettings, Windows
from lightning_edit.cli import main as cli
from lightning_edit.commands.comparison.runs import read_runs
from lightning_edit.commands.comparison.settings import differing, flat_settings
from lightning_edit.datamodules import TinyWorld
from lightning_edit.loop.same_run import plain
from lightning_edit.run.module import EditingModule
from lightning_edit.settings import settings_without_effect
from tests.small_runs import module

ALWAYS = {"values.radius", "values.growth", "values.norm_anchor_edits"}
OF_TEXT = {f"second_moment.{name}" for name in ("length", "join_texts", "question_share", "questions", "subjects")}


CASES = [
    ({}, set(), {"values.lr", "values.kl_prompt", "second_moment.tokens"}),
    ({"values": ValueSettings(optimizer="descent")}, {"values.lr"}, {"values.radius", "values.steps"}),
    ({"values": ValueSettings(norm_anchor="auto")}, set(), {"values.norm_anchor_edits"}),
    ({"values": ValueSettings(kl_factor=0.0)}, {"values.kl_prompt"}, {"values.kl_factor"}),
    ({"source": Windows()}, {"key_average", "values.kl_factor", "values.kl_prompt"}, {"values.lr"}),
    (
        {"source": Gradient(), "solver": MEMIT()},
        {"key_average", "values.lr", "values.steps", "values.site", "source.floor"},
        {"source.eta", "source.warmup", "second_moment.tokens"},
    ),
    (
        {"source": Gradient(normalize="whitened"), "solver": Ridge()},
        {"second_moment.source", "second_moment.tokens", "second_moment.preserve"} | OF_TEXT,
        {"source.floor", "solver.ridge"},
    ),
    (
        {"source": Gradient(normalize="none"), "solver": Ridge()},
        {"source.floor", "source.warmup"},
        {"source.scale"},
    ),
    (
        {"second_moment": SecondMomentSettings(source="identity")},
        {"second_moment.tokens"} | OF_TEXT,
        {"second_moment.source", "second_moment.preserve"},
    ),
    ({"solver": EMMET(), "edits_per_update": 1}, {"solver.emmet_lambda"}, {"solver.ridge"}),
    ({"solver": EMMET(), "edits_per_update": 2}, set(), {"solver.emmet_lambda"}),
]


@pytest.mark.parametrize(("settings", "more", "effective"), CASES)
def test_what_is_idle_is_declared_once(settings, more, effective):
    idle = module(**settings).idle
    descent = {"values.radius", "values.growth"} & effective and {"values.radius", "values.growth"}
    assert ALWAYS - effective - descent <= idle
    assert more <= idle
    assert not effective & idle


OTHERS = [
    {"source": Windows(), "solver": EMMET(), "edits_per_update": 1},
    {"source": Windows(), "solver": None},
    {"source": Gradient(), "solver": None},
    {"solver": None, "edits_per_update": 1},
    {"source": Gradient(scale="alone", tokens="all"), "solver": Sum()},
    {"source": Windows(), "values": ValueSettings(optimizer="descent", kl_factor=0.0)},
    {"values": ValueSettings(norm_anchor=2.0)},
    {"second_moment": SecondMomentSettings(source="none"), "solver": AlphaEdit()},
]


@pytest.mark.parametrize("settings", [*(settings for settings, _, _ in CASES), *OTHERS])
def test_of_an_older_run_its_settings_tell_the_same(settings):
    made = module(**settings)
    config = {"model": plain(made.hparams)}
    noted = settings_without_effect({"model": type(made)}, "methods")
    known = flat_settings(config, noted | {f"model.{name}" for name in made.idle})
    assert flat_settings(config, noted) == known
    # Before runs noted anything, there was no setting `memory`.
    del config["model"]["memory"]
    assert flat_settings(config) == known
    assert "model.values.steps" in known or "model.source.eta" in known


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs of values from gradients that differ in what a search would take, and one in how far they go."""
    folder = tmp_path_factory.mktemp("runs")
    words = {"data.edits": 4, "model.layers": "[0,1]", "model.source.maps": '["mlp.*"]', "collateral.prompts": 0}
    words |= {"trainer.logger.save_dir": folder, "model.evaluation.generated_match": "false"}
    words |= {
        "model.post_processing": "RECT",
        "model.previous_keys": "true",
        "model.edits_per_update": 2,
        "model.source.warmup": 4,
    }
    changes = [{"model.values.lr": 0.5}, {"model.values.lr": 0.1}, {"model.source.eta": 2e-6}]
    for change in changes:
        given = (f"--{name}={value}" for name, value in (words | change).items())
        cli.main(["fit", "--config", "configs/solvers/ultraedit.yaml", *given])
    return [folder / f"version_{number}" for number in range(len(changes))]


def test_runs_that_differ_in_nothing_else_are_one_method(runs):
    first, same, other = (run.settings for run in read_runs(runs)[0])
    assert differing([first, same]) == []
    assert "model.source.eta" in differing([first, other])
    assert first["method"] == "ultraedit + RECT"


def test_a_card_lists_what_had_an_effect(runs, tmp_path):
    cli.main(["export", str(runs[0]), "--out", str(tmp_path / "lora")])
    card = Path(tmp_path / "lora" / "README.md").read_text().replace("\\", "")
    for name in ("source.eta", "source.maps", "solver.ridge", "post_processing", "previous_keys"):
        assert name in card, name
    for name in ("values.", "second_moment.", "source.floor", "source.net"):
        assert name not in card, name


METHODS = {
    "adam": ("emmet", {"model.values.steps": 3}, "EMMET", {"values.lr: `0.5`", "solver.emmet_lambda"}),
    "descent": (
        "emmet",
        {"model.values.steps": 3, "model.values.optimizer": "descent", "model.edits_per_update": 1},
        "EMMET",
        {"values.optimizer: `descent`", "values.radius: `0.3`", "values.growth: `1.1`"},
    ),
    "gradients": ("ultraedit", {}, "UltraEdit", {"source.eta", "solver.ridge"}),
}


def as_before(run, folder):
    """The run with another seed, as versions wrote it that did not note what is idle beside other settings."""
    older = shutil.copytree(run, folder)
    content = json.loads((run / "metrics.json").read_text())
    always = settings_without_effect({"model": EditingModule, "data": TinyWorld}, "methods")
    assert set(content["settings_without_effect"]) > always
    content["settings_without_effect"] = sorted(always)
    content["config"]["model"]["seed"] += 1
    (older / "metrics.json").write_text(json.dumps(content))
    return older


@pytest.mark.parametrize("method", sorted(METHODS))
def test_an_older_run_and_a_new_one_are_one_method(method, tmp_path, capsys):
    file, changed, name, effective = METHODS[method]
    words = {"data.edits": 4, "model.layers": 0, "model.solver.ridge": 0.1, "model.second_moment.tokens": 500}
    words |= {"trainer.logger.save_dir": tmp_path, "model.evaluation.generated_match": "false", "collateral.prompts": 0}
    given = (f"--{setting}={value}" for setting, value in (words | changed).items())
    cli.main(["fit", "--config", f"configs/solvers/{file}.yaml", *given])
    run = tmp_path / "version_0"
    older = as_before(run, tmp_path / "older")
    capsys.readouterr()
    cli.main(["compare", str(older), str(run), "--output", str(tmp_path / "comparison.png")])
    said = capsys.readouterr()
    assert f"{name}: means over 2 seeds" in said.out
    assert "same data" not in said.out + said.err
    cards = []
    for folder in (older, run):
        cli.main(["export", str(folder), "--out", str(tmp_path / f"lora_{folder.name}")])
        card = (tmp_path / f"lora_{folder.name}" / "README.md").read_text(encoding="utf-8").replace("\\", "")
        cards.append([line for line in card.splitlines() if not line.startswith("- seed: ")])
    assert cards[0] == cards[1]
    for setting in effective:
        assert any(setting in line for line in cards[0]), setting
