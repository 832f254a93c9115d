"""What has no effect beside other settings is neither compared, nor shown on the card of what is exported."""

from pathlib import Path

import pytest

from lightning_edit import EMMET, MEMIT, Gradient, Ridge, SecondMomentSettings, ValueSettings, Windows
from lightning_edit.cli import main as cli
from lightning_edit.commands.comparison.runs import read_runs
from lightning_edit.commands.comparison.settings import differing
from tests.small_runs import module

ALWAYS = {"values.radius", "values.growth", "values.norm_anchor_edits"}
OF_TEXT = {f"second_moment.{name}" for name in ("length", "join_texts", "question_share", "questions", "subjects")}


@pytest.mark.parametrize(
    ("settings", "more", "effective"),
    [
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
    ],
)
def test_what_is_idle_is_declared_once(settings, more, effective):
    idle = module(**settings).idle
    descent = {"values.radius", "values.growth"} & effective and {"values.radius", "values.growth"}
    assert ALWAYS - effective - descent <= idle
    assert more <= idle
    assert not effective & idle


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
    assert first["method"] == "ultraedit"


def test_a_card_lists_what_had_an_effect(runs, tmp_path):
    cli.main(["export", str(runs[0]), "--out", str(tmp_path / "lora")])
    card = Path(tmp_path / "lora" / "README.md").read_text().replace("\\", "")
    for name in ("source.eta", "source.maps", "solver.ridge", "post_processing", "previous_keys"):
        assert name in card, name
    for name in ("values.", "second_moment.", "source.floor", "source.net"):
        assert name not in card, name
