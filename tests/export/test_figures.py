"""``export`` of a run whose figures are not as a run writes them: refused in words, before a model is loaded."""

import json
import shutil

import pytest

from lightning_edit.cli import main as cli


@pytest.mark.parametrize("to", ["lora", "model"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"before": {}, "after": 5}, "after: expected a table, got 5"),
        ({"before": {"efficacy_score": "high"}, "after": {}}, "before.efficacy_score: expected a number, got 'high'"),
        ({"after": {"efficacy_score": True}}, "after.efficacy_score: expected a number, got True"),
        ({"after": {"efficacy_score": 10**400}}, "after.efficacy_score: expected a number"),
        ({"collateral": [1]}, "collateral: expected a table, got [1]"),
        ({"collateral": {"figures": {"general_worse": "some"}}}, "collateral.figures.general_worse: expected a number"),
        ({"collateral": {"worst": ["bad"]}}, "collateral.worst.0: expected a table, got 'bad'"),
        ({"config": {"model": 3}}, "config.model: expected a table, got 3"),
        ({"method_file": 3}, "method_file: expected a text, got 3"),
        ([], "its content: expected a table, got []"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_figures_of_another_form_are_refused_before_a_model_is_loaded(
    content, said, to, finished, tmp_path, monkeypatch, capsys
):
    run = shutil.copytree(finished, tmp_path / "run")
    (run / "metrics.json").write_text(json.dumps(content))
    monkeypatch.setattr(
        "lightning_edit.updates.base_model.load_base", lambda *_, **__: pytest.fail("a model was loaded")
    )
    with pytest.raises(SystemExit) as left:
        cli.main(["export", str(run), "--to", to])
    assert left.value.code == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert f"{run / 'metrics.json'} does not hold the figures of a run ({said}" in shown
    assert "move it away to export without them" in shown
    assert not (run / f"export-{to}").exists()


def test_what_could_not_be_measured_is_left_out(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    content = json.loads((run / "metrics.json").read_text())
    content |= {"before": None, "collateral": None, "after": {**content["after"], "efficacy_score": None}}
    (run / "metrics.json").write_text(json.dumps(content))
    cli.main(["export", str(run), "--to", "model"])
    card = (run / "export-model" / "README.md").read_text(encoding="utf-8")
    assert "| prefers the new answer to the old one |  |  |" in card
